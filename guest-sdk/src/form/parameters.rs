//! `form-data; name="a"; filename="b"`: a header value with parameters.

/// The value in front, and the parameters with lower-case names.
///
/// Quoted values follow what clients send rather than one RFC: browsers write a quote as `%22` and a backslash as
/// itself, others write `\"` and `\\`.
pub(super) fn parse(value: &str) -> (&str, Vec<(String, String)>) {
    let (front, mut rest) = value.split_once(';').unwrap_or((value, ""));
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let Some((name, after)) = rest.split_once('=') else {
            break;
        };
        let name = name.trim().to_ascii_lowercase();
        let (value, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        parameters.push((name, value));
        rest = after;
    }
    (front.trim(), parameters)
}

/// The text up to the closing quote, and what follows that.
fn unquote(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = quoted;
    while let Some(c) = rest.chars().next() {
        let (piece, taken) = match c {
            '"' => return (text, &rest[1..]),
            '\\' if rest.starts_with("\\\"") => ('"', 2),
            '\\' if rest.starts_with("\\\\") => ('\\', 2),
            // https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
            '%' if rest.starts_with("%22") => ('"', 3),
            '%' if rest.starts_with("%0D") => ('\r', 3),
            '%' if rest.starts_with("%0A") => ('\n', 3),
            c => (c, c.len_utf8()),
        };
        text.push(piece);
        rest = &rest[taken..];
    }
    (text, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, front: &str, expected: &[(&str, &str)]) {
        let (found, parameters) = parse(value);
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!((found, &parameters[..]), (front, expected), "{value:?}");
    }

    #[test]
    fn parameters_are_split_unquoted_and_unescaped() {
        check("text/plain", "text/plain", &[]);
        check("text/plain;", "text/plain", &[]);
        check("a; B=c", "a", &[("b", "c")]);
        check("a;b=\"c;d\";e=f ;", "a", &[("b", "c;d"), ("e", "f")]);
        check(r#"a; b="say \"hi\" \\ C:\x %22%0D%0A%20""#, "a", &[("b", "say \"hi\" \\ C:\\x \"\r\n%20")]);
        check("a; b=\"open", "a", &[("b", "open")]);
        check("a; b=\"ä\"; c", "a", &[("b", "ä")]);
        check("a; b = \"c\" ; d=e", "a", &[("b", "c"), ("d", "e")]);
        check("", "", &[]);
        check("=;=\"", "=", &[("", "")]);
    }
}
