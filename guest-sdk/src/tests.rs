//! `start_response`, `write` and bodies, against the stand-in for the host.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::rc::Rc;

use crate::{Body, Environ, Error, ProtocolError, Result, StartResponse, StreamError, testing};

fn call(app: impl FnOnce(Environ, StartResponse) -> Result<Body>) -> Result<testing::Response> {
    testing::call(app, Environ::from_iter([("PATH_INFO", "/")]), b"one\ntwo\nthree")
}

fn check(app: impl FnOnce(Environ, StartResponse) -> Result<Body>, status: &str, body: &str) {
    let response = call(app).unwrap();
    assert_eq!((&*response.status, &*String::from_utf8_lossy(&response.body)), (status, body));
}

fn check_error(app: impl FnOnce(Environ, StartResponse) -> Result<Body>, expected: ProtocolError) {
    let error = call(app).unwrap_err();
    assert_eq!((error.name(), error.message()), ("ProtocolError", &*expected.to_string()));
}

#[test]
fn the_classic_sample_answers() {
    let app = |_, start: StartResponse| {
        start.call("200 OK", &[("Content-Type", "text/plain")])?;
        Ok(Body::from("Hello"))
    };
    let response = call(app).unwrap();
    assert_eq!(response.headers, [("Content-Type".to_owned(), "text/plain".to_owned())]);
    check(app, "200 OK", "Hello");
}

#[test]
fn a_second_start_response_without_exc_info_is_an_error() {
    check_error(
        |_, start| {
            start.call("200 OK", &[])?;
            start.call("200 OK", &[])?;
            Ok(Body::empty())
        },
        ProtocolError::AlreadyStarted,
    );
}

#[test]
fn a_second_start_response_after_one_that_failed_is_an_error() {
    check_error(
        |_, start| {
            assert!(start.call("nonsense", &[]).is_err());
            start.call("200 OK", &[])?;
            Ok(Body::empty())
        },
        ProtocolError::AlreadyStarted,
    );
}

#[test]
fn exc_info_replaces_what_was_said_and_reaches_the_log() {
    let app = |_, start: StartResponse| {
        start.call("200 OK", &[])?;
        start.call_with_exc_info("500 Oops", &[], Error::new("Broken", "it broke"))?;
        Ok(Body::from("sorry"))
    };
    check(app, "500 Oops", "sorry");
    assert_eq!(call(app).unwrap().log, "Broken: it broke\n");
}

#[test]
fn exc_info_after_the_headers_went_out_comes_back() {
    let app = |_, start: StartResponse| {
        start.call("200 OK", &[])?.write(b"half")?;
        start.call_with_exc_info("500 Oops", &[], Error::new("Broken", "it broke"))?;
        Ok(Body::empty())
    };
    assert_eq!(call(app).unwrap_err().name(), "Broken");
}

#[test]
fn exc_info_after_the_first_block_of_a_stream_comes_back() {
    let app = |_, start: StartResponse| {
        start.call("200 OK", &[])?;
        let mut step = 0;
        Ok(Body::stream(std::iter::from_fn(move || {
            step += 1;
            match step {
                1 => Some(Ok("half")),
                2 => Some(start.call_with_exc_info("500 Oops", &[], Error::new("Broken", "it broke")).map(|_| "")),
                _ => None,
            }
        })))
    };
    assert_eq!(call(app).unwrap_err().name(), "Broken");
}

#[test]
fn written_blocks_precede_returned_ones() {
    check(
        |_, start| {
            let mut write = start.call("200 OK", &[])?;
            write.write(b"a")?;
            write!(write, "{}", 1)?;
            Ok(Body::from("z"))
        },
        "200 OK",
        "a1z",
    );
}

#[test]
fn write_from_within_the_iterable_is_an_error() {
    check_error(
        |_, start| {
            let write = start.call("200 OK", &[])?;
            Ok(Body::stream(std::iter::once_with(move || write.write(b"x").map(|()| ""))))
        },
        ProtocolError::WriteInIterable,
    );
}

#[test]
fn handles_that_outlive_their_call_say_so() {
    let mut kept = None;
    call(|_, start| {
        let write = start.call("200 OK", &[])?;
        kept = Some((start, write));
        Ok(Body::empty())
    })
    .unwrap();
    let (start, write) = kept.unwrap();
    assert_eq!(start.call("200 OK", &[]).map(drop), Err(ProtocolError::CallOver));
    assert_eq!(write.write(b"x").unwrap_err().message(), ProtocolError::CallOver.to_string());
}

#[test]
fn a_generator_may_start_the_response_in_its_first_step() {
    check(
        |_, start| {
            Ok(Body::stream((0..3).map(move |step| -> Result<String> {
                if step == 0 {
                    start.call("201 Late", &[])?;
                }
                Ok(step.to_string())
            })))
        },
        "201 Late",
        "012",
    );
}

#[test]
fn an_application_that_never_starts_its_response_fails() {
    assert_eq!(call(|_, _| Ok(Body::from("x"))).unwrap_err().message(), "start_response was never called");
}

#[test]
fn dropping_the_iterator_is_close_and_happens_once() {
    struct Closes(Rc<Cell<u32>>);
    impl Drop for Closes {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let count = Rc::new(Cell::new(0));
    for fails in [false, true] {
        count.set(0);
        let guard = Closes(count.clone());
        let outcome = call(|_, start| {
            start.call("200 OK", &[])?;
            Ok(Body::stream((0..2).map(move |_| {
                let _held = &guard;
                if fails { Err(Error::new("Broken", "")) } else { Ok("x") }
            })))
        });
        assert_eq!((outcome.is_err(), count.get()), (fails, 1));
    }
}

#[test]
fn bodies_come_from_bytes_text_lists_and_readers() {
    let start_with = |body: fn() -> Body| {
        move |_: Environ, start: StartResponse| {
            start.call("200 OK", &[])?;
            Ok(body())
        }
    };
    check(start_with(|| Body::from(vec![b'a'])), "200 OK", "a");
    check(start_with(|| Body::from(b"ab")), "200 OK", "ab");
    check(start_with(|| Body::from(vec![b"a".to_vec(), b"b".to_vec()])), "200 OK", "ab");
    check(start_with(|| ["a", "b"].into_iter().collect()), "200 OK", "ab");
    check(start_with(|| Body::stream(["a", "", "b"])), "200 OK", "ab");
    check(start_with(|| Body::from_reader(std::io::repeat(b'x').take(3))), "200 OK", "xxx");
    check(start_with(|| Body::from(())), "200 OK", "");
}

#[test]
fn a_file_is_given_from_its_offset_with_its_length() {
    use std::io::{Cursor, Seek, SeekFrom};

    let file = |offset, promised: Option<&'static str>| {
        let response = call(move |_, start| {
            let headers: Vec<(&str, &str)> = promised.map(|length| ("content-length", length)).into_iter().collect();
            start.call("200 OK", &headers)?;
            let mut file = Cursor::new(b"0123456789");
            file.seek(SeekFrom::Start(offset))?;
            Ok(crate::FileWrapper::with_block_size(file, 4)?.into())
        });
        let response = response.unwrap();
        (response.headers[0].1.clone(), String::from_utf8(response.body).unwrap())
    };
    assert_eq!(file(0, None), ("10".to_owned(), "0123456789".to_owned()));
    assert_eq!(file(3, None), ("7".to_owned(), "3456789".to_owned()));
    assert_eq!(file(10, None), ("0".to_owned(), String::new()));
    assert_eq!(file(99, None), ("0".to_owned(), String::new()));
    assert_eq!(file(2, Some("3")), ("3".to_owned(), "234".to_owned()), "a smaller length counts");
    assert_eq!(file(8, Some("30")), ("30".to_owned(), "89".to_owned()), "the host breaks off what falls short");
}

#[test]
fn the_input_has_lines() {
    call(|environ, start| {
        let mut input = environ.input();
        assert_eq!(input.lines().next(), Some(Ok(b"one\n".to_vec())));
        assert_eq!(input.readlines(1)?, [b"two\n"]);
        assert_eq!(input.readlines(0)?, [b"three"]);
        assert_eq!(input.lines().next(), None);
        start.call("200 OK", &[])?;
        Ok(Body::empty())
    })
    .unwrap();
}

#[test]
fn the_input_is_read_by_blocks_and_lines_without_loss() {
    call(|environ, start| {
        let mut input = environ.input();
        assert_eq!(input.readline(100)?, b"one\n");
        assert_eq!(input.readline(2)?, b"tw");
        assert_eq!(input.read_block(0)?, b"");
        assert_eq!(input.read_block(3)?, b"o\nt");
        let mut rest = String::new();
        BufReader::new(environ.input()).read_line(&mut rest)?;
        assert_eq!(rest, "hree");
        assert_eq!(input.readline(9)?, b"");
        start.call("200 OK", &[])?;
        Ok(Body::empty())
    })
    .unwrap();
}

#[test]
fn errors_are_handed_over_by_lines_and_the_rest_at_the_end() {
    let response = call(|environ, start| {
        let mut errors = environ.errors();
        std::fmt::Write::write_fmt(&mut errors, format_args!("a{}\nb", 1)).unwrap();
        errors.flush();
        errors.write_str("c").unwrap();
        start.call("200 OK", &[])?;
        Ok(Body::empty())
    });
    assert_eq!(response.unwrap().log, "a1\nb\nc");
}

#[test]
fn stream_errors_keep_their_kind_as_io_errors() {
    let kind = |error: StreamError| std::io::Error::from(error).kind();
    assert_eq!(kind(StreamError::TooLarge), std::io::ErrorKind::FileTooLarge);
    assert_eq!(kind(StreamError::Disconnected("gone".into())), std::io::ErrorKind::ConnectionAborted);
}
