--- The idx format of MNIST and its kin, plain or gzipped: magic 0 0 type dims, one big-endian u32 a dimension, the
-- elements.

local ffi = require("ffi")
local check = require("perigee.check")
local system = require("perigee.system")
local pg = require("perigee")

ffi.cdef [[
void *pg_z_open(const char *, const char *) __asm__("gzopen");
int pg_z_read(void *, void *, unsigned int) __asm__("gzread");
int pg_z_close(void *) __asm__("gzclose");
const char *pg_z_error(void *, int *) __asm__("gzerror");
]]

local TYPES = {
    [0x08] = { "uint8", 1 }, [0x09] = { "int8", 1 }, [0x0B] = { "int16", 2 }, [0x0C] = { "int32", 4 },
    [0x0D] = { "float32", 4 }, [0x0E] = { "float64", 8 },
}

-- deflate cannot shrink by more than this.
local DEFLATE_RATIO = 1032

local zlib

local function open_zlib()
    if not zlib then
        local ok, library = pcall(ffi.load, "libz.so.1")
        if not ok then
            check.fail("read_idx: zlib (libz.so.1) is not installed (Debian: apt install zlib1g)")
        end
        zlib = library
    end
    return zlib
end

-- Reads n bytes, or says why not.
local function read(z, file, n, path, what)
    local buffer = ffi.new("uint8_t[?]", math.max(n, 1))
    local at = 0
    while at < n do
        local got = z.pg_z_read(file, buffer + at, math.min(n - at, 2 ^ 30))
        if got <= 0 then
            local code = ffi.new("int[1]")
            local message = ffi.string(z.pg_z_error(file, code))
            if code[0] ~= 0 and message ~= "" then
                return nil, ("read_idx: %s: %s (%s: %d of %d bytes)"):format(path, message, what, at, n)
            end
            return nil, ("read_idx: %s ends too early: expected %d bytes of %s, got %d"):format(path, n, what, at)
        end
        at = at + got
    end
    return buffer
end

local function big_endian(buffer, at)
    return ((buffer[at] * 256 + buffer[at + 1]) * 256 + buffer[at + 2]) * 256 + buffer[at + 3]
end

local function swap_bytes(buffer, count, size)
    for i = 0, count - 1 do
        local low, high = i * size, i * size + size - 1
        while low < high do
            buffer[low], buffer[high] = buffer[high], buffer[low]
            low, high = low + 1, high - 1
        end
    end
end

local function parse(z, file, path, bytes_on_disk)
    local magic, why = read(z, file, 4, path, "the magic number")
    if not magic then
        return nil, why
    end
    local kind = TYPES[magic[2]]
    if magic[0] ~= 0 or magic[1] ~= 0 or not kind or magic[3] == 0 or magic[3] > 16 then
        return nil, ("read_idx: %s is no idx file: expected it to start with 0 0, a type (0x08 to 0x0E) and the number "
            .. "of dimensions, got %02x %02x %02x %02x"):format(path, magic[0], magic[1], magic[2], magic[3])
    end
    local header
    header, why = read(z, file, 4 * magic[3], path, "sizes")
    if not header then
        return nil, why
    end
    local shape, count = {}, 1
    for d = 1, magic[3] do
        shape[d] = big_endian(header, 4 * (d - 1))
        count = count * shape[d]
    end
    -- Before any memory is asked for: what the file cannot hold is no size.
    if count * kind[2] > bytes_on_disk * DEFLATE_RATIO then
        return nil, ("read_idx: %s claims [%s] %s, more than its %d bytes can hold"):format(path,
            table.concat(shape, ", "), kind[1], bytes_on_disk)
    end
    local elements
    elements, why = read(z, file, count * kind[2], path, ("elements of [%s]"):format(table.concat(shape, ", ")))
    if not elements then
        return nil, why
    end
    local more = z.pg_z_read(file, magic, 1)
    if more ~= 0 then
        return nil, ("read_idx: %s goes on after its %d elements of [%s]%s"):format(path, count,
            table.concat(shape, ", "), more < 0 and ", with damaged data" or "")
    end
    if kind[2] > 1 and ffi.abi("le") then
        swap_bytes(elements, count, kind[2])
    end
    return pg.from_memory(elements, shape, pg[kind[1]])
end

--- Reads an idx file.
---@param path string plain or gzipped
---@return Tensor of the file's type and shape
local function read_idx(path)
    if type(path) ~= "string" then
        check.fail("read_idx: expected a path, got %s", check.describe(path))
    end
    local plain, why = io.open(path, "rb")
    if not plain then
        check.fail("read_idx: cannot read %s", why)
    elseif system.is_directory(path) then
        plain:close()
        check.fail("read_idx: %s is a folder", path)
    end
    local bytes = plain:seek("end")
    plain:close()
    local z = open_zlib()
    local file = z.pg_z_open(path, "rb")
    if file == nil then
        check.fail("read_idx: cannot open %s", path)
    end
    local ok, tensor, message = pcall(parse, z, file, path, bytes)
    local closed = z.pg_z_close(file)
    if not ok then
        error(tensor, 0)
    elseif not tensor then
        check.fail("%s", message)
    elseif closed ~= 0 and closed ~= -5 then   -- -5: the last read met the end in the middle of a stream, checked above
        check.fail("read_idx: %s is damaged (zlib %d)", path, closed)
    end
    return tensor
end

return { read_idx = read_idx }
