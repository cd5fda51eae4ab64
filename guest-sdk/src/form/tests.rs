//! Forms as clients send them, and as they should not.

use super::*;

const TYPE: &str = "multipart/form-data; boundary=XX";

/// Hands out so many bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.1.min(buffer.len()).min(self.0.len());
        buffer[..bytes].copy_from_slice(&self.0[..bytes]);
        self.0 = &self.0[bytes..];
        Ok(bytes)
    }
}

fn parse(body: &[u8], piece: usize, limits: FormLimits) -> Result<Form, FormError> {
    Form::read_multipart(Multipart::new(Trickle(body, piece), TYPE)?, limits)
}

/// Whatever the size of the pieces in which the body arrives, the form is the same.
fn check(body: &[u8], fields: &[(&str, &str)], files: &[(&str, &str, &str, &[u8])]) {
    for piece in [1, 2, 3, 5, 7, 64, usize::MAX] {
        let form = parse(body, piece, FormLimits::default()).unwrap();
        assert_eq!(form.iter().collect::<Vec<_>>(), fields, "in pieces of {piece}");
        let found: Vec<_> = form
            .files()
            .iter()
            .map(|file| (&*file.name, &*file.filename, &*file.content_type, &file.bytes[..]))
            .collect();
        assert_eq!(found, files, "in pieces of {piece}");
    }
}

fn check_malformed(body: &[u8]) {
    for piece in [1, 3, usize::MAX] {
        let outcome = parse(body, piece, FormLimits::default());
        assert!(matches!(outcome, Err(FormError::Malformed(_))), "{outcome:?}");
    }
}

#[test]
fn query_fields_keep_their_order_and_repeat() {
    let form = Form::from_query("a=1&b=%C3%A9+x&a=2&c&=d&&e=%zz%ff");
    let fields: Vec<_> = form.iter().collect();
    assert_eq!(fields, [("a", "1"), ("b", "é x"), ("a", "2"), ("c", ""), ("", "d"), ("e", "%zz\u{fffd}")]);
    assert_eq!(form.get("a"), Some("1"));
    assert_eq!(form.get_all("a").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(form.get("z"), None);
}

#[test]
fn fields_and_files_are_told_apart_by_the_file_name() {
    check(
        b"--XX\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nHello\r\n\
          --XX\r\nContent-Disposition: form-data; name=\"doc\"; filename=\"a\\\"b.txt\"\r\nContent-Type: image/png\r\n\r\n\
          \x00\r\n--X\r\n\xff\r\n--XX--\r\n",
        &[("title", "Hello")],
        &[("doc", "a\"b.txt", "image/png", b"\x00\r\n--X\r\n\xff")],
    );
}

#[test]
fn preamble_padding_and_epilogue_are_skipped() {
    check(
        b"hello\r\n--XX \t\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--XX-- bye --XX\r\n",
        &[("a", "1")],
        &[],
    );
}

#[test]
fn empty_parts_and_empty_forms_are_fine() {
    check(b"--XX--\r\n", &[], &[]);
    check(b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--XX--", &[("a", "")], &[]);
    // Without the line break of its own that an empty part should have.
    check(b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n--XX--", &[("a", "")], &[]);
    check(
        b"--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\"\r\n\r\n\r\n--XX--",
        &[],
        &[("f", "", "text/plain", b"")],
    );
}

#[test]
fn content_that_resembles_the_delimiter_is_content() {
    let content = b"\r\n\r\n-\r\n--\r\n--X\r\n--x\r--XX\n--XX\r\r\n";
    let mut body = b"--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n".to_vec();
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--XX--");
    check(&body, &[], &[("f", "f", "text/plain", content)]);
}

#[test]
fn parts_left_unread_are_skipped() {
    let body = b"--XX\r\nContent-Disposition: form-data; name=a\r\n\r\nlong text\r\n\
                 --XX\r\nContent-Disposition: form-data; name=b\r\n\r\nx\r\n--XX--";
    let mut parts = Multipart::new(Trickle(body, 4), TYPE).unwrap();
    let mut first = parts.next_part().unwrap().unwrap();
    assert_eq!(first.read(&mut [0; 2]).unwrap(), 2);
    let mut second = parts.next_part().unwrap().unwrap();
    assert_eq!(second.name(), "b");
    assert_eq!(io::read_to_string(&mut second).unwrap(), "x");
    assert_eq!(second.read(&mut [0; 2]).unwrap(), 0);
    assert!(parts.next_part().unwrap().is_none());
    assert!(parts.next_part().unwrap().is_none());
}

#[test]
fn forms_that_break_off_are_errors_wherever_they_do() {
    let body = b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nHello\r\n--XX--";
    for end in 0..body.len() {
        check_malformed(&body[..end]);
    }
}

#[test]
fn malformed_parts_are_errors() {
    check_malformed(b"--XX\r\n\r\nx\r\n--XX--");
    check_malformed(b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--");
    check_malformed(b"--XX\r\nno header\r\n\r\nx\r\n--XX--");
    check_malformed(b"--XXContent-Disposition: form-data; name=a\r\n\r\nx\r\n--XX--");
}

#[test]
fn limits_hold() {
    let tight = |bytes_max, fields_max| FormLimits { bytes_max, fields_max };
    let mut body = Vec::new();
    for _ in 0..3 {
        body.extend_from_slice(b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n12345\r\n");
    }
    body.extend_from_slice(b"--XX--");
    assert!(parse(&body, 9, tight(18, 3)).is_ok());
    assert!(matches!(parse(&body, 9, tight(17, 3)), Err(FormError::TooLarge)));
    assert!(matches!(parse(&body, 9, tight(18, 2)), Err(FormError::TooManyFields)));
    assert!(matches!(Form::read_urlencoded(&b"a=1&b=2"[..], tight(6, 9)), Err(FormError::TooLarge)));
    assert!(matches!(Form::read_urlencoded(&b"a=1&b=2"[..], tight(7, 1)), Err(FormError::TooManyFields)));
    assert!(Form::read_urlencoded(&b"a=1&b=2"[..], tight(7, 2)).is_ok());
    let endless = [b"--XX\r\nX: ".to_vec(), vec![b'y'; 20_000]].concat();
    assert!(matches!(parse(&endless, 4096, FormLimits::default()), Err(FormError::TooLarge)));
}

#[test]
fn the_boundary_comes_from_the_content_type() {
    let fails = |content_type| Multipart::new(io::empty(), content_type).map(drop).unwrap_err();
    assert!(matches!(fails("text/plain"), FormError::NotAForm(what) if what == "text/plain"));
    assert!(matches!(fails(""), FormError::NotAForm(_)));
    assert!(matches!(fails("multipart/form-data"), FormError::Malformed(_)));
    assert!(matches!(fails("multipart/form-data; boundary=\"\""), FormError::Malformed(_)));
    assert!(Multipart::new(io::empty(), "Multipart/Form-Data; Boundary=\"a b\"").is_ok());
}
