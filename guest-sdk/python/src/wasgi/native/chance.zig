//! The state of a generator of random numbers, made of a few bytes: see `wasgi_guest/chance.py`.

const std = @import("std");
const python = @import("python.zig");

/// `RandomObject` (Modules/_randommodule.c), with the state of MT19937: whether it is that is asked by `state`.
const Generator = extern struct { head: python.Head, index: c_int, words: [624]u32 };
const KEY = 32;

/// state(generator): the words of its state, and the index.
pub fn state(_: ?*python.Object, arguments: ?*python.Object) callconv(.c) ?*python.Object {
    var generator: ?*Generator = null;
    if (python.PyArg_ParseTuple(arguments, "O", &generator) == 0) return null;
    const words = std.mem.sliceAsBytes(&generator.?.words);
    const result = python.PyBytes_FromStringAndSize(null, @intCast(words.len + @sizeOf(c_int))) orelse return null;
    const bytes = python.PyBytes_AsString(result);
    @memcpy(bytes[0..words.len], words);
    @memcpy(bytes[words.len..][0..@sizeOf(c_int)], std.mem.asBytes(&generator.?.index));
    return result;
}

/// scatter(generator, key): makes a state of 32 random bytes.
pub fn scatter(_: ?*python.Object, arguments: ?*python.Object) callconv(.c) ?*python.Object {
    var generator: ?*Generator = null;
    var key: [*]const u8 = undefined;
    var length: isize = 0;
    if (python.PyArg_ParseTuple(arguments, "Oy#", &generator, &key, &length) == 0) return null;
    if (length != KEY) {
        python.PyErr_SetString(python.PyExc_ValueError, "the key is not of 32 bytes");
        return null;
    }
    var source: std.Random.Xoshiro256 = .{ .s = undefined };
    @memcpy(std.mem.asBytes(&source.s), key[0..KEY]);
    // A state of zeros stays one.
    source.s[0] |= 1;
    var index: usize = 0;
    while (index < generator.?.words.len) : (index += 2) {
        const both = source.next();
        generator.?.words[index] = @truncate(both);
        generator.?.words[index + 1] = @truncate(both >> 32);
    }
    // All of it is used: the next number is of the next state.
    generator.?.index = generator.?.words.len;
    return python.PyLong_FromSsize_t(0);
}
