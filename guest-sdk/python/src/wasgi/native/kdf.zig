//! `_wasgi_kdf`: the key derivations of `hashlib` that CPython leaves to OpenSSL, which a sandbox does not have. Zig's standard library
//! computes them; here they only meet Python. And what Python has no word for: `settle` and `fill`, for the build alone (`wasgi_guest/settled.py`), and
//! `scatter` (`wasgi_guest/chance.py`).

const std = @import("std");
const sha1 = std.crypto.hash.Sha1;
const sha2 = std.crypto.hash.sha2;

const Object = opaque {};
/// The head of every object, on a machine with 32-bit pointers.
const Head = extern struct { references: isize = 1, type: ?*anyopaque = null };
const Method = extern struct {
    name: ?[*:0]const u8 = null,
    function: ?*const fn (?*Object, ?*Object) callconv(.c) ?*Object = null,
    flags: c_int = 0,
    doc: ?[*:0]const u8 = null,
};
/// PyModuleDef.
const Definition = extern struct {
    head: Head = .{},
    init: ?*anyopaque = null,
    index: isize = 0,
    copy: ?*Object = null,
    name: [*:0]const u8,
    doc: ?[*:0]const u8 = null,
    size: isize = -1,
    methods: [*]Method,
    slots: ?*anyopaque = null,
    traverse: ?*anyopaque = null,
    clear: ?*anyopaque = null,
    free: ?*anyopaque = null,
};
const VARARGS = 1;
/// PYTHON_API_VERSION.
const API_VERSION = 1013;

extern fn PyModule_Create2(*Definition, c_int) ?*Object;
extern fn PyArg_ParseTuple(?*Object, [*:0]const u8, ...) c_int;
extern fn PyBytes_FromStringAndSize(?[*]const u8, isize) ?*Object;
extern fn PyBytes_AsString(?*Object) [*]u8;
extern fn PyErr_NoMemory() ?*Object;
extern fn PyErr_SetString(?*Object, [*:0]const u8) void;
extern var PyExc_ValueError: ?*Object;
extern fn PyMem_RawMalloc(usize) ?[*]u8;
extern fn PyMem_RawFree(?*anyopaque) void;
extern fn Py_DecRef(?*Object) void;
extern fn PyList_Size(?*Object) isize;
extern fn PyList_GetItem(?*Object, isize) ?*Head;
extern fn PyType_GetFlags(?*anyopaque) c_ulong;
extern fn PyType_GetSlot(?*anyopaque, c_int) ?*anyopaque;
extern fn PyLong_FromSsize_t(isize) ?*Object;

/// pbkdf2(hash, password, salt, iterations, length)
fn pbkdf2(_: ?*Object, arguments: ?*Object) callconv(.c) ?*Object {
    var name: [*:0]const u8 = undefined;
    var password: [*]const u8 = undefined;
    var salt: [*]const u8 = undefined;
    var password_len: isize = 0;
    var salt_len: isize = 0;
    var rounds: c_uint = 0;
    var length: c_uint = 0;
    if (PyArg_ParseTuple(arguments, "sy#y#II", &name, &password, &password_len, &salt, &salt_len, &rounds, &length) == 0) return null;
    const result = PyBytes_FromStringAndSize(null, @intCast(length)) orelse return null;
    const key = PyBytes_AsString(result)[0..length];
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
    Py_DecRef(result);
    PyErr_SetString(PyExc_ValueError, "unsupported hash type");
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
fn scrypt(_: ?*Object, arguments: ?*Object) callconv(.c) ?*Object {
    var password: [*]const u8 = undefined;
    var salt: [*]const u8 = undefined;
    var password_len: isize = 0;
    var salt_len: isize = 0;
    var ln: c_uint = 0;
    var r: c_uint = 0;
    var p: c_uint = 0;
    var length: c_uint = 0;
    if (PyArg_ParseTuple(arguments, "y#y#IIII", &password, &password_len, &salt, &salt_len, &ln, &r, &p, &length) == 0) return null;
    const result = PyBytes_FromStringAndSize(null, @intCast(length)) orelse return null;
    const parameters: std.crypto.pwhash.scrypt.Params = .{ .ln = @truncate(ln), .r = @truncate(r), .p = @truncate(p) };
    std.crypto.pwhash.scrypt.kdf(
        python_memory,
        PyBytes_AsString(result)[0..length],
        password[0..@intCast(password_len)],
        salt[0..@intCast(salt_len)],
        parameters,
    ) catch |err| {
        Py_DecRef(result);
        if (err == error.OutOfMemory) return PyErr_NoMemory();
        PyErr_SetString(PyExc_ValueError, "n, r, p or length out of range");
        return null;
    };
    return result;
}

/// PEP 683, on a machine with 32-bit pointers: from so many references on an object is immortal, and nobody counts any more.
const IMMORTAL_MINIMUM: isize = 1 << 30;
const IMMORTAL: isize = 5 << 28;
const HAVE_GC: c_ulong = 1 << 14;
/// Of integers, bytes and strings.
const PLAIN: c_ulong = 1 << 24 | 1 << 27 | 1 << 28;
const SLOT_TRAVERSE = 71;
const Visit = fn (?*Head, ?*anyopaque) callconv(.c) c_int;
const Traverse = fn (?*Head, *const Visit, ?*anyopaque) callconv(.c) c_int;

/// settle(objects): makes the objects of a list immortal, and what they refer to of strings, bytes, integers, which the collector does not know.
/// Returns how many these were.
fn settle(_: ?*Object, arguments: ?*Object) callconv(.c) ?*Object {
    var list: ?*Object = null;
    if (PyArg_ParseTuple(arguments, "O", &list) == 0) return null;
    var count: isize = 0;
    var index: isize = 0;
    while (index < PyList_Size(list)) : (index += 1) {
        const object = PyList_GetItem(list, index) orelse return null;
        count += keep(object);
        if (PyType_GetFlags(object.type) & HAVE_GC == 0) continue;
        const slot = PyType_GetSlot(object.type, SLOT_TRAVERSE) orelse continue;
        const traverse: *const Traverse = @ptrCast(@alignCast(slot));
        _ = traverse(object, visit, &count);
    }
    return PyLong_FromSsize_t(count);
}

fn visit(object: ?*Head, argument: ?*anyopaque) callconv(.c) c_int {
    const count: *isize = @ptrCast(@alignCast(argument.?));
    const flags = PyType_GetFlags(object.?.type);
    if (flags & HAVE_GC == 0 and flags & PLAIN != 0) count.* += keep(object.?);
    return 0;
}

fn keep(object: *Head) isize {
    if (object.references >= IMMORTAL_MINIMUM) return 0;
    object.references = IMMORTAL;
    return 1;
}

const PIECE: usize = 1 << 20;

/// fill(): takes what is free between what is in use, for good, so that whatever is allocated later lies side by side behind it all, where there
/// is some room. Returns how many bytes these were.
fn fill(_: ?*Object, _: ?*Object) callconv(.c) ?*Object {
    // Behind it all is what made the memory grow.
    var pieces: [64]?[*]u8 = @splat(null);
    const size = @wasmMemorySize(0);
    var count: usize = 0;
    while (count < pieces.len and @wasmMemorySize(0) == size) : (count += 1) {
        pieces[count] = PyMem_RawMalloc(PIECE) orelse return PyErr_NoMemory();
    }
    const behind = @intFromPtr(pieces[count - 1]);
    var taken: usize = 0;
    var block = PIECE / 2;
    while (block >= 8) : (block -= if (block > 1024) block / 8 / 8 * 8 else 8) {
        while (PyMem_RawMalloc(block)) |place| {
            if (@intFromPtr(place) >= behind) {
                PyMem_RawFree(place);
                break;
            }
            taken += block;
        }
    }
    while (count > 0) : (count -= 1) PyMem_RawFree(pieces[count - 1]);
    return PyLong_FromSsize_t(@intCast(taken));
}

/// `RandomObject` (Modules/_randommodule.c), with the state of MT19937: whether it is that is asked by `state`.
const Generator = extern struct { head: Head, index: c_int, words: [624]u32 };
const KEY = 32;

/// state(generator): the words of its state, and the index.
fn state(_: ?*Object, arguments: ?*Object) callconv(.c) ?*Object {
    var generator: ?*Generator = null;
    if (PyArg_ParseTuple(arguments, "O", &generator) == 0) return null;
    const words = std.mem.sliceAsBytes(&generator.?.words);
    const result = PyBytes_FromStringAndSize(null, @intCast(words.len + @sizeOf(c_int))) orelse return null;
    const bytes = PyBytes_AsString(result);
    @memcpy(bytes[0..words.len], words);
    @memcpy(bytes[words.len..][0..@sizeOf(c_int)], std.mem.asBytes(&generator.?.index));
    return result;
}

/// scatter(generator, key): makes a state of 32 random bytes.
fn scatter(_: ?*Object, arguments: ?*Object) callconv(.c) ?*Object {
    var generator: ?*Generator = null;
    var key: [*]const u8 = undefined;
    var length: isize = 0;
    if (PyArg_ParseTuple(arguments, "Oy#", &generator, &key, &length) == 0) return null;
    if (length != KEY) {
        PyErr_SetString(PyExc_ValueError, "the key is not of 32 bytes");
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
    return PyLong_FromSsize_t(0);
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
    const whole = PyMem_RawMalloc(len +| room) orelse return null;
    const address = alignment.forward(@intFromPtr(whole) + @sizeOf(usize));
    const block: [*]u8 = @ptrFromInt(address);
    const note: *align(1) usize = @ptrFromInt(address - @sizeOf(usize));
    note.* = @intFromPtr(whole);
    return block;
}

fn release(_: *anyopaque, memory: []u8, _: std.mem.Alignment, _: usize) void {
    const note: *align(1) const usize = @ptrFromInt(@intFromPtr(memory.ptr) - @sizeOf(usize));
    PyMem_RawFree(@ptrFromInt(note.*));
}

var methods = [_]Method{
    .{ .name = "pbkdf2", .function = pbkdf2, .flags = VARARGS },
    .{ .name = "scrypt", .function = scrypt, .flags = VARARGS },
    .{ .name = "settle", .function = settle, .flags = VARARGS },
    .{ .name = "fill", .function = fill, .flags = VARARGS },
    .{ .name = "state", .function = state, .flags = VARARGS },
    .{ .name = "scatter", .function = scatter, .flags = VARARGS },
    .{},
};
var definition: Definition = .{ .name = "_wasgi_kdf", .methods = &methods };

export fn PyInit__wasgi_kdf() ?*Object {
    return PyModule_Create2(&definition, API_VERSION);
}

/// There is nobody to tell: the sandbox ends.
pub const panic = std.debug.no_panic;
