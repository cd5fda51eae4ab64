//! The PROXY protocol, versions 1 and 2: what a proxy in front that passes bytes on says of its client, before these bytes.
//!
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>

use std::io;
use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, Protocol, ProxiedAddress, ProxyHeader};

use super::client::Client;

/// Version 1 has at most 107 bytes; version 2 up to 64 KiB of additions, of which nothing is used here.
const HEADER_BYTES_MAX: usize = 4 << 10;

const CONFIG: ParseConfig = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };

/// The client's address, and the one that it reached.
type Addresses = (SocketAddr, SocketAddr);

/// Reads the header. None where the proxy speaks for itself (LOCAL: a health check), or does not know its client (UNKNOWN).
///
/// # Errors
/// Where there is none, or it is wrong or too long.
pub(super) async fn read(client: &mut Client) -> io::Result<Option<Addresses>> {
    loop {
        match parse(client.ahead())? {
            Some((addresses, bytes)) => {
                client.skip(bytes);
                return Ok(addresses);
            }
            None if client.look_further().await? => {}
            None => return Err(invalid("the connection ends before its PROXY protocol header does")),
        }
    }
}

/// The addresses and the length of a header; none where more bytes are needed to tell.
fn parse(bytes: &[u8]) -> io::Result<Option<(Option<Addresses>, usize)>> {
    let within = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    match ProxyHeader::parse(within, CONFIG) {
        Ok((header, length)) => match header.proxied_address() {
            None => Ok(Some((None, length))),
            Some(ProxiedAddress { protocol: Protocol::Stream, source, destination }) => {
                Ok(Some((Some((*source, *destination)), length)))
            }
            Some(_) => Err(invalid("the PROXY protocol header is about datagrams")),
        },
        Err(Error::BufferTooShort) if bytes.len() < HEADER_BYTES_MAX => Ok(None),
        Err(Error::BufferTooShort) => Err(invalid("the PROXY protocol header is too long")),
        Err(_) => Err(invalid("the connection does not begin with a PROXY protocol header")),
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSION_2: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n";

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = VERSION_2.to_vec();
        header.extend_from_slice(&[command, family]);
        header.extend_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend_from_slice(rest);
        header
    }

    #[track_caller]
    fn check(header: &[u8], expected: Result<Option<&str>, ()>) {
        let found = parse(header).map(|parsed| {
            let (addresses, length) = parsed.expect("it is whole");
            assert_eq!(length, header.len());
            addresses.map(|(source, destination)| format!("{source} {destination}"))
        });
        assert_eq!(found.map_err(|_| ()), expected.map(|text| text.map(str::to_owned)));
        // A header arrives in pieces: no part of it is taken for another one.
        for end in 0..header.len() {
            assert!(!matches!(parse(&header[..end]), Ok(Some(_))), "{end} bytes are not the whole");
        }
    }

    #[test]
    fn both_versions_name_the_client() {
        check(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", Ok(Some("192.0.2.7:4711 198.51.100.1:443")));
        check(b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", Ok(Some("[2001:db8::7]:4711 [2001:db8::1]:443")));
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];
        check(&version_2(0x21, 0x11, &four), Ok(Some("192.0.2.7:4711 198.51.100.1:443")));
        // Additions are passed over.
        check(
            &version_2(0x21, 0x11, &[&four[..], &[4, 0, 1, 0]].concat()),
            Ok(Some("192.0.2.7:4711 198.51.100.1:443")),
        );
    }

    #[test]
    fn local_and_unknown_leave_the_peer() {
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(None));
        check(&version_2(0x20, 0x00, &[]), Ok(None));
        check(&version_2(0x21, 0x31, &[0; 216]), Ok(None));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 99999\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            &version_2(0x22, 0x11, &[0; 12]),
            &version_2(0x21, 0x12, &[0; 12]),
            &[&version_2(0x21, 0x11, &[0; 3])[..], b"GET / HTTP/1.1\r\n"].concat(),
            &version_2(0x21, 0x11, &[0; 8000]),
        ] {
            assert!(parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; HEADER_BYTES_MAX]].concat();
        assert!(parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_a_header_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let start: &[u8] = match kind { 0 => b"", 1 => b"PROXY TCP4 ", _ => VERSION_2 };
            let bytes = [start, &bytes].concat();
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
