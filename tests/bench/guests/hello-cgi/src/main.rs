//! The classic sample as a CGI program: what the WSGI guests say, printed by a plain `main`.

fn main() {
    print!("Content-Type: text/plain\n\nThis is a sample WSGI Application.");
}
