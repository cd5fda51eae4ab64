//! What an app has made when it is built is immortal, and lies where calls allocate nothing: for the build alone, see `wasgi_guest/settled.py`.

const std = @import("std");
const python = @import("python.zig");

/// PEP 683, on a machine with 32-bit pointers: from so many references on an object is immortal, and nobody counts any more.
const IMMORTAL_MINIMUM: isize = 1 << 30;
const IMMORTAL: isize = 5 << 28;
const HAVE_GC: c_ulong = 1 << 14;
/// Of integers, bytes and strings.
const PLAIN: c_ulong = 1 << 24 | 1 << 27 | 1 << 28;
const SLOT_TRAVERSE = 71;
const Visit = fn (?*python.Head, ?*anyopaque) callconv(.c) c_int;
const Traverse = fn (?*python.Head, *const Visit, ?*anyopaque) callconv(.c) c_int;

/// settle(objects): makes the objects of a list immortal, and what they refer to of strings, bytes, integers, which the collector does not know.
/// Returns how many these were.
pub fn settle(_: ?*python.Object, arguments: ?*python.Object) callconv(.c) ?*python.Object {
    var list: ?*python.Object = null;
    if (python.PyArg_ParseTuple(arguments, "O", &list) == 0) return null;
    var count: isize = 0;
    var index: isize = 0;
    while (index < python.PyList_Size(list)) : (index += 1) {
        const object = python.PyList_GetItem(list, index) orelse return null;
        count += keep(object);
        if (python.PyType_GetFlags(object.type) & HAVE_GC == 0) continue;
        const slot = python.PyType_GetSlot(object.type, SLOT_TRAVERSE) orelse continue;
        const traverse: *const Traverse = @ptrCast(@alignCast(slot));
        _ = traverse(object, visit, &count);
    }
    return python.PyLong_FromSsize_t(count);
}

fn visit(object: ?*python.Head, argument: ?*anyopaque) callconv(.c) c_int {
    const count: *isize = @ptrCast(@alignCast(argument.?));
    const flags = python.PyType_GetFlags(object.?.type);
    if (flags & HAVE_GC == 0 and flags & PLAIN != 0) count.* += keep(object.?);
    return 0;
}

fn keep(object: *python.Head) isize {
    if (object.references >= IMMORTAL_MINIMUM) return 0;
    object.references = IMMORTAL;
    return 1;
}

const PIECE: usize = 1 << 20;

/// fill(): takes what is free between what is in use, for good, so that whatever is allocated later lies side by side behind it all, where there
/// is some room. Returns how many bytes these were.
pub fn fill(_: ?*python.Object, _: ?*python.Object) callconv(.c) ?*python.Object {
    // Behind it all is what made the memory grow.
    var pieces: [64]?[*]u8 = @splat(null);
    const size = @wasmMemorySize(0);
    var count: usize = 0;
    while (count < pieces.len and @wasmMemorySize(0) == size) : (count += 1) {
        pieces[count] = python.PyMem_RawMalloc(PIECE) orelse return python.PyErr_NoMemory();
    }
    const behind = @intFromPtr(pieces[count - 1]);
    var taken: usize = 0;
    var block = PIECE / 2;
    while (block >= 8) : (block -= if (block > 1024) block / 8 / 8 * 8 else 8) {
        while (python.PyMem_RawMalloc(block)) |place| {
            if (@intFromPtr(place) >= behind) {
                python.PyMem_RawFree(place);
                break;
            }
            taken += block;
        }
    }
    while (count > 0) : (count -= 1) python.PyMem_RawFree(pieces[count - 1]);
    return python.PyLong_FromSsize_t(@intCast(taken));
}
