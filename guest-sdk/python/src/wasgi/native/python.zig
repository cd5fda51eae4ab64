//! What of CPython's interface is used here.

pub const Object = opaque {};
/// The head of every object, on a machine with 32-bit pointers.
pub const Head = extern struct { references: isize = 1, type: ?*anyopaque = null };
pub const Method = extern struct {
    name: ?[*:0]const u8 = null,
    function: ?*const fn (?*Object, ?*Object) callconv(.c) ?*Object = null,
    flags: c_int = 0,
    doc: ?[*:0]const u8 = null,
};
/// PyModuleDef.
pub const Definition = extern struct {
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
/// A function has its arguments in a tuple; or one, as it is.
pub const VARARGS = 1;
pub const ONE = 8;
/// PYTHON_API_VERSION.
pub const API_VERSION = 1013;

pub extern fn PyModule_Create2(*Definition, c_int) ?*Object;
pub extern fn PyArg_ParseTuple(?*Object, [*:0]const u8, ...) c_int;
pub extern fn PyBytes_FromStringAndSize(?[*]const u8, isize) ?*Object;
pub extern fn PyBytes_AsString(?*Object) [*]u8;
pub extern fn PyBytes_AsStringAndSize(?*Object, *[*]u8, *isize) c_int;
pub extern fn PyErr_NoMemory() ?*Object;
pub extern fn PyErr_SetString(?*Object, [*:0]const u8) void;
pub extern var PyExc_ValueError: ?*Object;
pub extern fn PyMem_RawMalloc(usize) ?[*]u8;
pub extern fn PyMem_RawFree(?*anyopaque) void;
pub extern fn Py_DecRef(?*Object) void;
pub extern fn Py_IncRef(?*Object) void;
pub extern fn PyDict_New() ?*Object;
pub extern fn PyDict_SetItem(?*Object, ?*Object, ?*Object) c_int;
pub extern fn PyList_Size(?*Object) isize;
pub extern fn PyList_GetItem(?*Object, isize) ?*Head;
pub extern fn PyTuple_Size(?*Object) isize;
pub extern fn PyTuple_GetItem(?*Object, isize) ?*Object;
pub extern fn PyType_GetFlags(?*anyopaque) c_ulong;
pub extern fn PyType_GetSlot(?*anyopaque, c_int) ?*anyopaque;
pub extern fn PyLong_FromSsize_t(isize) ?*Object;
pub extern fn PyUnicode_AsUTF8AndSize(?*Object, *isize) ?[*]const u8;
pub extern fn PyUnicode_DecodeLatin1([*]const u8, isize, ?[*:0]const u8) ?*Object;
