//! A CGI program that does with key-value stores what its query names.

fn main() {
    let query = std::env::var("QUERY_STRING").unwrap_or_default();
    println!("Content-Type: text/plain\n\n{}", shelf::run(&query));
}
