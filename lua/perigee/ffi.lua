--- Declares the engine to LuaJIT and loads its library.
--
-- The header is perigee_api.h itself, read verbatim. The library is looked for in this order: the file that
-- PERIGEE_LIBRARY names; in a source tree, the build folder (PERIGEE_BUILD, "build" by default); in an installed
-- prefix, its lib folder; at last wherever the system's loader finds libperigee.so.

local ffi = require "ffi"
local optable = require "perigee.optable"

local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
local tree = here .. "/../.."       -- the source tree's root, where this is one
local prefix = here .. "/../../../.."   -- PREFIX, from PREFIX/share/perigee/lua/perigee

local function exists(path)
    local file = io.open(path, "rb")
    if file then file:close() end
    return file ~= nil
end

local function read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    return text
end

local function absolute(path)
    return path:sub(1, 1) == "/"
end

local function find_header()
    local places = { tree .. "/engine/include/perigee_api.h", prefix .. "/include/perigee/perigee_api.h" }
    for _, path in ipairs(places) do
        local text = read(path)
        if text then return text, path end
    end
    error("perigee: perigee_api.h is missing; looked at\n  " .. table.concat(places, "\n  "), 0)
end

local function find_library()
    local named = os.getenv("PERIGEE_LIBRARY")
    if named and named ~= "" then
        if not exists(named) then error("perigee: PERIGEE_LIBRARY names a file that does not exist: " .. named, 0) end
        return { named }
    end
    local build = os.getenv("PERIGEE_BUILD")
    if not build or build == "" then build = "build" end
    local places = {}
    if exists(tree .. "/engine/include/perigee_api.h") then
        places[1] = (absolute(build) and build or tree .. "/" .. build) .. "/libperigee.so"
    else
        local machine = jit.arch == "arm64" and "aarch64" or "x86_64"
        for _, folder in ipairs { "lib", "lib64", "lib/" .. machine .. "-linux-gnu" } do
            places[#places + 1] = prefix .. "/" .. folder .. "/libperigee.so"
        end
    end
    for _, path in ipairs(places) do
        if exists(path) then return { path } end
    end
    return { "perigee", places }
end

local header, header_path = find_header()

-- At the defaults a program with a thousand op call sites flushes the trace cache again and again.
require("jit.opt").start("maxtrace=20000", "maxmcode=32768")

local declared, message = pcall(ffi.cdef, header)
if not declared then error("perigee: " .. header_path .. " cannot be declared: " .. tostring(message), 0) end

local found = find_library()
local loaded, C = pcall(ffi.load, found[1])
if not loaded then
    local looked = found[2] and "; looked at\n  " .. table.concat(found[2], "\n  ") or ""
    error("perigee: the library does not load: " .. tostring(C) .. looked, 0)
end

-- In the perigee program Ctrl-C ends long calls of the engine too.
local host = package.loaded["perigee.host"]
if host then host.interrupt(tonumber(ffi.cast("uintptr_t", ffi.cast("void *", C.pg_interrupt)))) end

local rows, mark = optable.index(header, header_path)

-- Buffers through which modules hand values to the engine and take its answers. One of each serves a whole Lua state,
-- as nothing else runs between writing and reading; save and restore are for a debug hook that runs in between.
local shared = {}

local function shared_buffer(...)
    local buffer = ffi.new(...)
    shared[#shared + 1] = buffer
    return buffer
end

local function save_shared()
    local saved = {}
    for k, buffer in ipairs(shared) do saved[k] = ffi.string(buffer, ffi.sizeof(buffer)) end
    return saved
end

local function restore_shared(saved)
    for k, bytes in ipairs(saved) do ffi.copy(shared[k], bytes, #bytes) end
end

return {
    C = C,
    header = header,
    header_path = header_path,
    library = found[1],
    folder = here,
    rows = rows,
    mark = mark,
    shared_buffer = shared_buffer,
    save_shared = save_shared,
    restore_shared = restore_shared,
}
