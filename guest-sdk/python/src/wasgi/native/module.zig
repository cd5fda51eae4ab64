//! `_wasgi_native`: the parts of the SDK that are not Python, for the interpreter inside the sandbox.

const std = @import("std");
const python = @import("python.zig");
const chance = @import("chance.zig");
const environ = @import("environ.zig");
const kdf = @import("kdf.zig");
const settled = @import("settled.zig");

var methods = [_]python.Method{
    .{ .name = "environ", .function = environ.environ, .flags = python.ONE },
    .{ .name = "fill", .function = settled.fill, .flags = python.VARARGS },
    .{ .name = "know", .function = environ.know, .flags = python.ONE },
    .{ .name = "pbkdf2", .function = kdf.pbkdf2, .flags = python.VARARGS },
    .{ .name = "scatter", .function = chance.scatter, .flags = python.VARARGS },
    .{ .name = "scrypt", .function = kdf.scrypt, .flags = python.VARARGS },
    .{ .name = "settle", .function = settled.settle, .flags = python.VARARGS },
    .{ .name = "state", .function = chance.state, .flags = python.VARARGS },
    .{},
};
var definition: python.Definition = .{ .name = "_wasgi_native", .methods = &methods };

export fn PyInit__wasgi_native() ?*python.Object {
    return python.PyModule_Create2(&definition, python.API_VERSION);
}

/// There is nobody to tell: the sandbox ends.
pub const panic = std.debug.no_panic;
