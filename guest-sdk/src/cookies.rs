//! The `Cookie` header, read with the crate `cookie`.

pub use ::cookie::{Cookie, CookieJar};

use crate::environ::Environ;

impl Environ {
    /// The cookies that the client sent; what is not a cookie is left out.
    ///
    /// What is added to the jar or removed from it goes back to the client as `Set-Cookie` headers:
    ///
    /// ```
    /// # let environ = wasgi::Environ::from_iter([("HTTP_COOKIE", "visits=4")]);
    /// let mut jar = environ.cookies();
    /// let visits = jar.get("visits").and_then(|cookie| cookie.value().parse().ok()).unwrap_or(0) + 1;
    /// jar.add(("visits", visits.to_string()));
    /// let set: Vec<String> = jar.delta().map(|cookie| cookie.encoded().to_string()).collect();
    /// let headers: Vec<(&str, &str)> = set.iter().map(|value| ("Set-Cookie", &**value)).collect();
    /// assert_eq!(headers, [("Set-Cookie", "visits=5")]);
    /// ```
    pub fn cookies(&self) -> CookieJar {
        let header = self.header("Cookie").unwrap_or_default().into_owned();
        let mut jar = CookieJar::new();
        Cookie::split_parse_encoded(header).flatten().for_each(|cookie| jar.add_original(cookie));
        jar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_decoded_and_rubbish_is_left_out() {
        let environ = Environ::from_iter([("HTTP_COOKIE", "a=1; rubbish; b=x%20y")]);
        let jar = environ.cookies();
        assert_eq!(jar.iter().count(), 2);
        assert_eq!(jar.get("b").map(Cookie::value), Some("x y"));
        assert_eq!(Environ::from_iter([("A", "b")]).cookies().iter().count(), 0);
    }
}
