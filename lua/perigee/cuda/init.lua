--- CUDA devices: PyTorch's torch.cuda. Whether there is one, streams and events, memory, random numbers, graphs.
--
-- A device is named "cuda", "cuda:1", or by its index; nil is the current one. Nothing here is needed to compute on
-- a GPU: x:to("cuda") is enough.

local ffi = require "ffi"
local core = require "perigee.ffi"
local errors = require "perigee.errors"
local memory = require "perigee.memory"
local random = require "perigee.random"
local wrapper = require "perigee.wrapper"
local graph = require "perigee.cuda.graph"

local C = core.C
local check = memory.check

local cuda = {}

-- ---- devices ----

--- A device's name, from a name, an index or nil.
local function name_of(device, where)
    if device == nil then return nil end
    if type(device) == "number" and device % 1 == 0 and device >= 0 then return ("cuda:%d"):format(device) end
    if type(device) == "string" then return device end
    return errors.fail("%s: device: expected a name such as 'cuda:0' or an index, got %s", where,
        wrapper.describe(device))
end

--- Is there a CUDA device? false and the reason where there is none.
---@return boolean, string?
function cuda.is_available()
    local why = C.pg_cuda_why_not()
    if why == nil then return true end
    return false, ffi.string(why)
end

--- Do the kernels run on the CPU (PERIGEE_CUDA=emulated)?
function cuda.is_emulated()
    return C.pg_cuda_is_emulated() == 1
end

function cuda.device_count()
    return C.pg_device_count("cuda")
end

--- The index of the device that "cuda" means in this thread.
---@return integer
function cuda.current_device()
    return C.pg_cuda_current_device()
end

--- Makes a device the one that "cuda" means in this thread.
---@param device string|integer
function cuda.set_device(device)
    if device == nil then errors.fail("set_device: expected a device, got nil") end
    check(C.pg_cuda_set_device(name_of(device, "set_device")))
end

local function restore_device(index, ok, ...)
    check(C.pg_cuda_set_device(("cuda:%d"):format(index)))
    if ok then return ... end
    error((...), 0)
end

--- Calls f(...) with another current device, and gives what it returns.
---@param device string|integer
---@param f function
function cuda.device(device, f, ...)
    if type(f) ~= "function" then errors.fail("device: expected a function, got %s", wrapper.describe(f)) end
    local before = cuda.current_device()
    cuda.set_device(device)
    return restore_device(before, pcall(f, ...))
end

local info = core.shared_buffer("pg_cuda_device_info")

---@param device string|integer|nil
---@return table name, major, minor, total_memory, multi_processor_count, ... (bytes)
function cuda.get_device_properties(device)
    check(C.pg_cuda_device_properties(info, name_of(device, "get_device_properties")))
    return {
        name = ffi.string(info.name), major = info.major, minor = info.minor, total_memory = info.total_memory,
        multi_processor_count = info.multi_processor_count, warp_size = info.warp_size,
        max_threads_per_block = info.max_threads_per_block,
        max_threads_per_multi_processor = info.max_threads_per_multi_processor,
        shared_memory_per_block = info.shared_memory_per_block,
        shared_memory_per_multiprocessor = info.shared_memory_per_multiprocessor, l2_cache_size = info.l2_cache_size,
    }
end

---@return string
function cuda.get_device_name(device)
    return cuda.get_device_properties(device).name
end

--- Major and minor version of what the device can do: 9, 0 is Hopper.
---@return integer, integer
function cuda.get_device_capability(device)
    local p = cuda.get_device_properties(device)
    return p.major, p.minor
end

--- Waits until all that was launched on the device has run. An error that a kernel met, such as an index out of
--- range, is raised here, unless a call that read from the device has raised it before.
---@param device string|integer|nil
function cuda.synchronize(device)
    check(C.pg_synchronize(name_of(device, "synchronize") or "cuda"))
end

-- ---- streams ----

local slot, flag = core.shared_buffer("pg_stream *[1]"), core.shared_buffer("bool[1]")

---@class cuda.Stream what is launched on it runs in order; two streams run side by side
local Stream = {}
Stream.__index = Stream

local function stream_of(pointer)
    return setmetatable({ pointer = pointer, device = ffi.string(C.pg_stream_device(pointer)) }, Stream)
end

local function check_stream(s, where)
    if getmetatable(s) ~= Stream then errors.fail("%s: expected a Stream, got %s", where, wrapper.describe(s)) end
    return s
end

function Stream.__eq(a, b) return a.pointer == b.pointer end
function Stream:__tostring()
    return ("<pg.cuda.Stream device=%s number=%d>"):format(self.device, C.pg_stream_number(self.pointer))
end

--- Waits until all that is on the stream has run.
function Stream:synchronize() check(C.pg_stream_synchronize(self.pointer)) end

--- Has all of it run?
---@return boolean
function Stream:query()
    check(C.pg_stream_query(flag, self.pointer))
    return flag[0]
end

---@class cuda.Event a mark on a stream
local Event = {}
Event.__index = Event

local function check_event(e, where)
    if getmetatable(e) ~= Event then errors.fail("%s: expected an Event, got %s", where, wrapper.describe(e)) end
    return e
end

--- Records an event (a new one by default) and gives it.
function Stream:record_event(event)
    event = event or cuda.Event({ device = self.device })
    check_event(event, "record_event"):record(self)
    return event
end

--- What comes on this stream waits for the event.
function Stream:wait_event(event)
    check(C.pg_event_wait(check_event(event, "wait_event").pointer, self.pointer))
end

--- What comes on this stream waits for all that is on the other one now.
function Stream:wait_stream(other)
    self:wait_event(check_stream(other, "wait_stream"):record_event())
end

local known_stream = { device = true, priority = true }

--- A stream; priority below 0 makes it urgent. (Streams are pooled: the 33rd of a device is the first again.)
---@param options table? device, priority
---@return cuda.Stream
function cuda.Stream(options)
    options = options or {}
    if type(options) ~= "table" then options = { device = options } end
    wrapper.check_options(options, known_stream, "Stream")
    check(C.pg_stream_new(slot, name_of(options.device, "Stream"), (options.priority or 0) < 0))
    return stream_of(slot[0])
end

--- The stream that this thread launches on.
---@return cuda.Stream
function cuda.current_stream(device)
    check(C.pg_stream_current(slot, name_of(device, "current_stream")))
    return stream_of(slot[0])
end

---@return cuda.Stream
function cuda.default_stream(device)
    check(C.pg_stream_default(slot, name_of(device, "default_stream")))
    return stream_of(slot[0])
end

---@param s cuda.Stream
function cuda.set_stream(s)
    check(C.pg_stream_set(check_stream(s, "set_stream").pointer))
end

local function restore_stream(before, ok, ...)
    C.pg_stream_set(before)
    if ok then return ... end
    error((...), 0)
end

--- Calls f(...) with s as the current stream, and gives what it returns. Tensors made by one stream and used on
--- another need an order between the two (wait_stream, events), and x:record_stream(s) before they are dropped.
---@param s cuda.Stream
---@param f function
function cuda.stream(s, f, ...)
    check_stream(s, "stream")
    if type(f) ~= "function" then errors.fail("stream: expected a function, got %s", wrapper.describe(f)) end
    local before = cuda.current_stream(s.device).pointer
    cuda.set_stream(s)
    return restore_stream(before, pcall(f, ...))
end

-- ---- events ----

local known_event = { enable_timing = true, device = true }
local event_slot, milliseconds = core.shared_buffer("pg_event *[1]"), core.shared_buffer("double[1]")

---@param options table? enable_timing (false), device
---@return cuda.Event
function cuda.Event(options)
    options = options or {}
    wrapper.check_options(options, known_event, "Event")
    check(C.pg_event_new(event_slot, name_of(options.device, "Event"), options.enable_timing == true))
    return setmetatable({ pointer = ffi.gc(event_slot[0], C.pg_event_free) }, Event)
end

--- The mark comes behind all that is on the stream (the current one by default).
function Event:record(s)
    s = s and check_stream(s, "record") or cuda.current_stream()
    check(C.pg_event_record(self.pointer, s.pointer))
end

--- What comes on the stream (the current one by default) waits for the mark.
function Event:wait(s)
    s = s and check_stream(s, "wait") or cuda.current_stream()
    check(C.pg_event_wait(self.pointer, s.pointer))
end

---@return boolean reached?
function Event:query()
    check(C.pg_event_query(flag, self.pointer))
    return flag[0]
end

--- Waits until the mark is reached.
function Event:synchronize() check(C.pg_event_synchronize(self.pointer)) end

--- Milliseconds between this mark and a later one; both made with enable_timing = true, and reached.
---@return number
function Event:elapsed_time(later)
    check(C.pg_event_elapsed(milliseconds, self.pointer, check_event(later, "elapsed_time").pointer))
    return milliseconds[0]
end

-- ---- memory ----

for _, name in ipairs {
    "memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved", "reset_peak_memory_stats",
    "memory_summary",
} do
    local of_device = memory[name]
    cuda[name] = function(device) return of_device(name_of(device, name) or "cuda") end
end

--- PyTorch's counters, in bytes and in numbers of allocations.
---@return table<string, number>
function cuda.memory_stats(device)
    local s = memory.memory_stats(name_of(device, "memory_stats") or "cuda")
    return {
        ["allocated_bytes.all.current"] = s.allocated, ["allocated_bytes.all.peak"] = s.max_allocated,
        ["allocated_bytes.all.allocated"] = s.allocated_ever,
        ["allocated_bytes.all.freed"] = s.allocated_ever - s.allocated,
        ["reserved_bytes.all.current"] = s.reserved, ["reserved_bytes.all.peak"] = s.max_reserved,
        ["allocation.all.current"] = s.allocations - s.frees, ["allocation.all.allocated"] = s.allocations,
        ["allocation.all.freed"] = s.frees, ["segment.all.allocated"] = s.system_allocations,
        num_alloc_retries = s.retries, num_ooms = s.failures,
    }
end

--- Gives cached memory back to the devices.
function cuda.empty_cache()
    for k = 0, cuda.device_count() - 1 do memory.empty_cache(("cuda:%d"):format(k)) end
end

local amounts = core.shared_buffer("double[2]")

--- Bytes free on the device, and all that it has.
---@return number, number
function cuda.mem_get_info(device)
    check(C.pg_cuda_memory_info(amounts, amounts + 1, name_of(device, "mem_get_info")))
    return amounts[0], amounts[1]
end

-- ---- random numbers ----

--- Seeds the current device's generator.
---@param seed integer
function cuda.manual_seed(seed)
    check(C.pg_manual_seed_of(random.check_seed(seed), "cuda"))
end

--- Seeds every CUDA device's generator.
---@param seed integer
function cuda.manual_seed_all(seed)
    seed = random.check_seed(seed)
    for k = 0, cuda.device_count() - 1 do check(C.pg_manual_seed_of(seed, ("cuda:%d"):format(k))) end
end

function cuda.seed() cuda.manual_seed(random.fresh_seed()) end

function cuda.seed_all() cuda.manual_seed_all(random.fresh_seed()) end

---@return number
function cuda.initial_seed() return C.pg_initial_seed("cuda") end

--- The generator's state: a uint8 tensor on the CPU.
---@return Tensor
function cuda.get_rng_state(device) return random.get_rng_state(name_of(device, "get_rng_state") or "cuda") end

---@param state Tensor uint8, on the CPU, from get_rng_state
function cuda.set_rng_state(state, device)
    random.set_rng_state(state, name_of(device, "set_rng_state") or "cuda")
end

-- ---- graphs ----

--- Is this thread capturing a graph?
function cuda.is_current_stream_capturing() return C.pg_graph_capturing() end

cuda.graph = graph.new
cuda.check_stream = check_stream

return cuda
