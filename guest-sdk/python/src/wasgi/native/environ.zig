//! The variables of a request, as a dictionary: see `wasgi_guest/gateway.py`.

const std = @import("std");
const python = @import("python.zig");

/// Names that most requests have, as strings that are made once: a call makes no string of them, and nobody hashes it.
const Name = struct { text: []const u8 = "", string: ?*python.Object = null };
var names: [512]Name = @splat(.{});
/// So that a search comes to an end soon.
const NAMES_MAX = names.len / 2;

/// The place of a name, or the free one where it would be.
fn place(text: []const u8) *Name {
    var hash: u32 = 2166136261;
    for (text) |byte| hash = (hash ^ byte) *% 16777619;
    var at: usize = (hash ^ hash >> 16) % names.len;
    while (names[at].string != null and !std.mem.eql(u8, names[at].text, text)) at = (at + 1) % names.len;
    return &names[at];
}

/// know(names): a tuple of strings, which has to stay.
pub fn know(_: ?*python.Object, tuple: ?*python.Object) callconv(.c) ?*python.Object {
    const count = python.PyTuple_Size(tuple);
    if (count < 0) return null;
    if (count > NAMES_MAX) {
        python.PyErr_SetString(python.PyExc_ValueError, "so many names are not known");
        return null;
    }
    var index: isize = 0;
    while (index < count) : (index += 1) {
        const string = python.PyTuple_GetItem(tuple, index) orelse return null;
        var length: isize = 0;
        const text = python.PyUnicode_AsUTF8AndSize(string, &length) orelse return null;
        place(text[0..@intCast(length)]).* = .{ .text = text[0..@intCast(length)], .string = string };
    }
    return python.PyLong_FromSsize_t(count);
}

/// environ(variables): of names and values, each with a NUL behind it, the code points of which are bytes. What follows the last NUL is nothing.
pub fn environ(_: ?*python.Object, variables: ?*python.Object) callconv(.c) ?*python.Object {
    var bytes: [*]u8 = undefined;
    var length: isize = 0;
    if (python.PyBytes_AsStringAndSize(variables, &bytes, &length) != 0) return null;
    const dictionary = python.PyDict_New() orelse return null;
    var rest: []const u8 = bytes[0..@intCast(length)];
    while (next(&rest)) |name| {
        const value = next(&rest) orelse break;
        if (!set(dictionary, name, value)) {
            python.Py_DecRef(dictionary);
            return null;
        }
    }
    return dictionary;
}

fn next(rest: *[]const u8) ?[]const u8 {
    const end = std.mem.indexOfScalar(u8, rest.*, 0) orelse return null;
    defer rest.* = rest.*[end + 1 ..];
    return rest.*[0..end];
}

fn set(dictionary: ?*python.Object, name: []const u8, value: []const u8) bool {
    const known = place(name).string;
    const key = known orelse made(name) orelse return false;
    defer if (known == null) python.Py_DecRef(key);
    const string = made(value) orelse return false;
    defer python.Py_DecRef(string);
    return python.PyDict_SetItem(dictionary, key, string) == 0;
}

fn made(text: []const u8) ?*python.Object {
    return python.PyUnicode_DecodeLatin1(text.ptr, @intCast(text.len), null);
}
