//! The `wasgi` command.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let [_, subcommand, rest @ ..] = arguments.as_slice()
        && subcommand == wasgi_host::deploy::compile::SUBCOMMAND
    {
        return wasgi_host::deploy::compile::compile_child_main(rest.iter().map(|argument| argument.as_os_str()));
    }
    std::process::ExitCode::SUCCESS
}
