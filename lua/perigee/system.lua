--- The few things of the operating system that the library needs and Lua lacks, through the FFI: clocks, terminals,
-- folders, durable files. POSIX only.

local bit = require("bit")
local ffi = require("ffi")

-- Names of our own for the C functions, so that no other module's declaration can conflict.
ffi.cdef [[
int pg_sys_isatty(int) __asm__("isatty");
int pg_sys_clock_gettime(int, int64_t *) __asm__("clock_gettime");
int pg_sys_ioctl(int, unsigned long, ...) __asm__("ioctl");
int pg_sys_mkdir(const char *, unsigned int) __asm__("mkdir");
int pg_sys_open(const char *, int, ...) __asm__("open");
int pg_sys_close(int) __asm__("close");
int pg_sys_fsync(int) __asm__("fsync");
int64_t pg_sys_write(int, const void *, size_t) __asm__("write");
int pg_sys_getpid(void) __asm__("getpid");
int pg_sys_gethostname(char *, size_t) __asm__("gethostname");
void *pg_sys_opendir(const char *) __asm__("opendir");
int pg_sys_closedir(void *) __asm__("closedir");
char *pg_sys_strerror(int) __asm__("strerror");
]]

local C = ffi.C
local M = {}

local timespec = ffi.new("int64_t[2]")

local function clock(which)
    C.pg_sys_clock_gettime(which, timespec)
    return tonumber(timespec[0]) + tonumber(timespec[1]) * 1e-9
end

--- Seconds since 1970, with a fraction.
function M.time()
    return clock(0)
end

--- Seconds of a clock that never jumps.
function M.monotonic()
    return clock(1)
end

--- Is the file descriptor (0, 1, 2) a terminal?
---@param descriptor integer
function M.isatty(descriptor)
    return C.pg_sys_isatty(descriptor) == 1
end

--- Columns of the terminal at a descriptor, or nil where it is none.
---@return integer?
function M.columns(descriptor)
    local size = ffi.new("uint16_t[4]")
    if C.pg_sys_ioctl(descriptor, 0x5413, size) == 0 and size[1] > 0 then   -- TIOCGWINSZ: rows, columns, pixels
        return size[1]
    end
end

local function strerror()
    return ffi.string(C.pg_sys_strerror(ffi.errno()))
end

function M.is_directory(path)
    local handle = C.pg_sys_opendir(path)
    if handle == nil then
        return false
    end
    C.pg_sys_closedir(handle)
    return true
end

--- Can the file be opened for reading?
function M.exists(path)
    local file = io.open(path, "rb")
    if file then
        file:close()
    end
    return file ~= nil
end

--- Makes a folder and the ones above it. Returns true, or nil and a message.
function M.mkdir(path)
    local built = path:sub(1, 1) == "/" and "/" or ""
    for part in path:gmatch("[^/]+") do
        built = built .. part
        if not M.is_directory(built) and C.pg_sys_mkdir(built, 511) ~= 0 then   -- 0777 less the umask
            local message = strerror()
            if not M.is_directory(built) then   -- another process may have made it meanwhile
                return nil, ("cannot make the folder %s: %s"):format(built, message)
            end
        end
        built = built .. "/"
    end
    return true
end

--- Writes a file so that an interruption leaves either the old content or the new: temporary file, fsync, rename.
---@return boolean? ok, string? message
function M.write_file(path, text)
    local temporary = ("%s.tmp%d"):format(path, C.pg_sys_getpid())
    -- To write, created, truncated; mode 0644 less the umask.
    local descriptor = C.pg_sys_open(temporary, bit.bor(1, 64, 512), ffi.cast("int", 420))
    if descriptor < 0 then
        return nil, ("cannot write %s: %s"):format(path, strerror())
    end
    local at = 0
    local bytes = ffi.cast("const char *", text)
    while at < #text do
        local n = tonumber(C.pg_sys_write(descriptor, bytes + at, #text - at))
        if n <= 0 then
            local message = strerror()
            C.pg_sys_close(descriptor)
            os.remove(temporary)
            return nil, ("cannot write %s: %s"):format(path, message)
        end
        at = at + n
    end
    local synced = C.pg_sys_fsync(descriptor) == 0
    local message = synced or strerror()
    C.pg_sys_close(descriptor)
    if not synced then
        os.remove(temporary)
        return nil, ("cannot write %s: %s"):format(path, message)
    end
    local renamed, why = os.rename(temporary, path)
    if not renamed then
        os.remove(temporary)
        return nil, ("cannot write %s: %s"):format(path, why)
    end
    return true
end

--- Reads a whole file. Returns its text, or nil and a message.
function M.read_file(path)
    local file, why = io.open(path, "rb")
    if not file then
        return nil, "cannot read " .. why
    end
    local text, reason = file:read("*a")
    file:close()
    if not text then
        return nil, ("cannot read %s: %s"):format(path, reason or "not a file")
    end
    return text
end

function M.hostname()
    local buffer = ffi.new("char[256]")
    if C.pg_sys_gethostname(buffer, 255) ~= 0 then
        return "localhost"
    end
    return ffi.string(buffer)
end

function M.getpid()
    return C.pg_sys_getpid()
end

--- A word for the shell: in single quotes, whatever it holds.
function M.shell_quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

return M
