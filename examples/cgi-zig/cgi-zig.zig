//! A CGI program in Zig: what main prints is the response.
const std = @import("std");

pub fn main(init: std.process.Init) !void {
    var output: [4096]u8 = undefined;
    var stdout = std.Io.File.stdout().writerStreaming(init.io, &output);
    const out = &stdout.interface;

    try out.writeAll("Content-Type: text/plain; charset=utf-8\n\n");
    try out.writeAll("Hello from Zig.\n");
    for ([_][]const u8{ "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH" }) |name| {
        try out.print("{s}={s}\n", .{ name, init.environ_map.get(name) orelse "" });
    }

    // The request body, of any size: it goes back as it comes.
    var input: [65536]u8 = undefined;
    var stdin = std.Io.File.stdin().readerStreaming(init.io, &input);
    _ = try stdin.interface.streamRemaining(out);
    try out.flush();
}
