--- safetensors files: pg.safetensors.save, pg.safetensors.load. The format is read, checked and written by the
--- engine.

local ffi = require "ffi"
local core = require "perigee.ffi"
local errors = require "perigee.errors"
local memory = require "perigee.memory"
local wrapper = require "perigee.wrapper"

local C = core.C
local T = ffi.typeof("pg_tensor")

local safetensors = {}

local known = { device = true, mmap = true }

local function check_path(where, path)
    if type(path) ~= "string" then errors.fail("%s: path: expected a string, got %s", where, wrapper.describe(path)) end
end

local function read(file, device)
    local tensors, metadata, names = {}, {}, {}
    for k = 0, C.pg_safetensors_count(file) - 1 do
        local name = ffi.string(C.pg_safetensors_name(file, k))
        local out = T(C.PG_HANDLE_MAGIC)
        memory.call(C.pg_safetensors_tensor, out, file, k, device)
        tensors[name] = out
        names[#names + 1] = name
    end
    for k = 0, C.pg_safetensors_metadata_count(file) - 1 do
        local key = ffi.string(C.pg_safetensors_metadata_key(file, k))
        metadata[key] = ffi.string(C.pg_safetensors_metadata_value(file, k))
    end
    return tensors, metadata, names
end

local function finish(file, ok, ...)
    C.pg_safetensors_close(file)
    if ok then return ... end
    error((...), 0)
end

--- Reads a file. Results: the tensors by name, the metadata (strings by string), the names in the file's order.
---@param path string
---@param options table? device; mmap = true maps the file instead of reading it (it must then not change)
---@return table<string, Tensor>, table<string, string>, string[]
function safetensors.load(path, options)
    check_path("safetensors.load", path)
    if options ~= nil then
        if type(options) ~= "table" then
            errors.fail("safetensors.load: expected a table of options, got %s", wrapper.describe(options))
        end
        wrapper.check_options(options, known, "safetensors.load")
    end
    local file = ffi.new("pg_safetensors *[1]")
    memory.check(C.pg_safetensors_open(file, path, options ~= nil and options.mmap == true))
    return finish(file[0], pcall(read, file[0], options and options.device))
end

--- Writes a file: complete, or not at all (a temporary file beside it, fsync, rename).
---@param path string
---@param tensors table<string, Tensor>
---@param metadata table<string, string>?
function safetensors.save(path, tensors, metadata)
    if type(path) == "table" and type(tensors) == "string" then path, tensors = tensors, path end -- Python's order
    check_path("safetensors.save", path)
    if type(tensors) ~= "table" then
        errors.fail("safetensors.save: expected a table of Tensors by name, got %s", wrapper.describe(tensors))
    end
    local function check_text(text)
        if text:find("\0", 1, true) then
            errors.fail("safetensors.save: a NUL in %q: names and metadata have none", text)
        end
    end
    local names = {}
    for name, t in pairs(tensors) do
        if type(name) ~= "string" then
            errors.fail("safetensors.save: expected names that are strings, got %s", wrapper.describe(name))
        end
        if not ffi.istype(T, t) then
            errors.fail("safetensors.save: '%s': expected a Tensor, got %s", name, wrapper.describe(t))
        end
        check_text(name)
        names[#names + 1] = name
    end
    table.sort(names)
    local keys = {}
    for key, value in pairs(metadata or {}) do
        if type(key) ~= "string" or type(value) ~= "string" then
            errors.fail("safetensors.save: metadata: expected strings, got %s = %s", wrapper.describe(key),
                wrapper.describe(value))
        end
        check_text(key)
        check_text(value)
        keys[#keys + 1] = key
    end
    table.sort(keys)
    local n, m = #names, #keys
    local c_names, c_tensors = ffi.new("const char *[?]", n + 1), ffi.new("const pg_tensor *[?]", n + 1)
    local c_keys, c_values = ffi.new("const char *[?]", m + 1), ffi.new("const char *[?]", m + 1)
    local values = {}   -- keeps the strings
    for k, name in ipairs(names) do
        c_names[k - 1], c_tensors[k - 1] = name, tensors[name]
    end
    for k, key in ipairs(keys) do
        values[k] = metadata[key]
        c_keys[k - 1], c_values[k - 1] = key, values[k]
    end
    memory.check(C.pg_safetensors_save(path, c_names, c_tensors, n, c_keys, c_values, m))
end

return safetensors
