//! A CGI program that reaches for what its query names.

fn main() {
    let query = std::env::var("QUERY_STRING").unwrap_or_default();
    println!("Content-Type: text/plain\n\n{}", elsewhere::run(&query));
}
