//! The key derivations of `hashlib` that CPython leaves to OpenSSL, which a sandbox does not have. Zig's standard library computes them; here they
//! only meet Python.

const std = @import("std");
const python = @import("python.zig");
const sha1 = std.crypto.hash.Sha1;
const sha2 = std.crypto.hash.sha2;

/// pbkdf2(hash, password, salt, iterations, length)
pub fn pbkdf2(_: ?*python.Object, arguments: ?*python.Object) callconv(.c) ?*python.Object {
    var name: [*:0]const u8 = undefined;
    var password: [*]const u8 = undefined;
    var salt: [*]const u8 = undefined;
    var password_len: isize = 0;
    var salt_len: isize = 0;
    var rounds: c_uint = 0;
    var length: c_uint = 0;
    if (python.PyArg_ParseTuple(arguments, "sy#y#II", &name, &password, &password_len, &salt, &salt_len, &rounds, &length) == 0) return null;
    const result = python.PyBytes_FromStringAndSize(null, @intCast(length)) orelse return null;
    const key = python.PyBytes_AsString(result)[0..length];
    const password_bytes = password[0..@intCast(password_len)];
    const salt_bytes = salt[0..@intCast(salt_len)];
    const hash = std.mem.span(name);
    const hashes = .{
        .{ "sha1", sha1 },
        .{ "sha224", sha2.Sha224 },
        .{ "sha256", sha2.Sha256 },
        .{ "sha384", sha2.Sha384 },
        .{ "sha512", sha2.Sha512 },
    };
    inline for (hashes) |known| {
        if (std.mem.eql(u8, hash, known[0])) {
            derive(known[1], key, password_bytes, salt_bytes, rounds);
            return result;
        }
    }
    python.Py_DecRef(result);
    python.PyErr_SetString(python.PyExc_ValueError, "unsupported hash type");
    return null;
}

/// RFC 8018 §5.2. std's pbkdf2 keys HMAC anew in each round; here the keyed states are made once, which halves the work.
fn derive(comptime Hash: type, key: []u8, password: []const u8, salt: []const u8, rounds: u32) void {
    var pad: [Hash.block_length]u8 = @splat(0);
    if (password.len > Hash.block_length) {
        Hash.hash(password, pad[0..Hash.digest_length], .{});
    } else {
        @memcpy(pad[0..password.len], password);
    }
    var inner = Hash.init(.{});
    var outer = Hash.init(.{});
    for (&pad) |*byte| byte.* ^= 0x36;
    inner.update(&pad);
    for (&pad) |*byte| byte.* ^= 0x36 ^ 0x5c;
    outer.update(&pad);

    var index: u32 = 0;
    while (index * Hash.digest_length < key.len) : (index += 1) {
        var first = inner;
        var number: [4]u8 = undefined;
        std.mem.writeInt(u32, &number, index + 1, .big);
        first.update(salt);
        first.update(&number);
        var block: [Hash.digest_length]u8 = undefined;
        finish(Hash, &first, outer, &block);
        var sum = block;
        for (1..rounds) |_| {
            var next = inner;
            next.update(&block);
            finish(Hash, &next, outer, &block);
            for (&sum, block) |*byte, other| byte.* ^= other;
        }
        const part = key[index * Hash.digest_length ..];
        const length = @min(part.len, sum.len);
        @memcpy(part[0..length], sum[0..length]);
    }
}

/// The outer hash of HMAC.
fn finish(comptime Hash: type, inner: *Hash, outer: Hash, block: *[Hash.digest_length]u8) void {
    inner.final(block);
    var last = outer;
    last.update(block);
    last.final(block);
}

/// scrypt(password, salt, log2(n), r, p, length)
pub fn scrypt(_: ?*python.Object, arguments: ?*python.Object) callconv(.c) ?*python.Object {
    var password: [*]const u8 = undefined;
    var salt: [*]const u8 = undefined;
    var password_len: isize = 0;
    var salt_len: isize = 0;
    var ln: c_uint = 0;
    var r: c_uint = 0;
    var p: c_uint = 0;
    var length: c_uint = 0;
    if (python.PyArg_ParseTuple(arguments, "y#y#IIII", &password, &password_len, &salt, &salt_len, &ln, &r, &p, &length) == 0) return null;
    const result = python.PyBytes_FromStringAndSize(null, @intCast(length)) orelse return null;
    const parameters: std.crypto.pwhash.scrypt.Params = .{ .ln = @truncate(ln), .r = @truncate(r), .p = @truncate(p) };
    std.crypto.pwhash.scrypt.kdf(
        python_memory,
        python.PyBytes_AsString(result)[0..length],
        password[0..@intCast(password_len)],
        salt[0..@intCast(salt_len)],
        parameters,
    ) catch |err| {
        python.Py_DecRef(result);
        if (err == error.OutOfMemory) return python.PyErr_NoMemory();
        python.PyErr_SetString(python.PyExc_ValueError, "n, r, p or length out of range");
        return null;
    };
    return result;
}

const python_memory: std.mem.Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = allocate,
    .resize = std.mem.Allocator.noResize,
    .remap = std.mem.Allocator.noRemap,
    .free = release,
} };

/// What lies before an aligned block says where it was allocated.
fn allocate(_: *anyopaque, len: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
    const room = alignment.toByteUnits() + @sizeOf(usize);
    const whole = python.PyMem_RawMalloc(len +| room) orelse return null;
    const address = alignment.forward(@intFromPtr(whole) + @sizeOf(usize));
    const block: [*]u8 = @ptrFromInt(address);
    const note: *align(1) usize = @ptrFromInt(address - @sizeOf(usize));
    note.* = @intFromPtr(whole);
    return block;
}

fn release(_: *anyopaque, memory: []u8, _: std.mem.Alignment, _: usize) void {
    const note: *align(1) const usize = @ptrFromInt(@intFromPtr(memory.ptr) - @sizeOf(usize));
    python.PyMem_RawFree(@ptrFromInt(note.*));
}
