--- Memory: collecting what the engine counts and Lua does not see, scopes, statistics (PyTorch's names).

local ffi = require "ffi"
local core = require "perigee.ffi"
local errors = require "perigee.errors"

local C = core.C
local memory = {}

if not pcall(ffi.typeof, "struct pg_clock_time") then
    ffi.cdef [[
        struct pg_clock_time { long seconds; long nanoseconds; };
        int clock_gettime(int clock, struct pg_clock_time *time);
    ]]
end
local clock_time = core.shared_buffer("struct pg_clock_time")

--- Seconds on a clock that never goes back.
local function now()
    ffi.C.clock_gettime(1, clock_time)
    return tonumber(clock_time.seconds) + tonumber(clock_time.nanoseconds) * 1e-9
end
memory.now = now

local last = now()

-- Dead handles that wait for Lua's collector keep their tensors' small blocks out of the CPU's caches. With the
-- collector's defaults 20,000 tensors wait, and an op on one element costs 0.8 us, 1.4 us with a gradient; with
-- a pause of 110% and steps five times as long 1,000 wait, and it costs 0.35 and 0.44 us. Marking a large heap
-- ten times as often costs more than that gains, so the pause follows the size of the heap: this object dies in
-- every cycle and sets it. Where the program has chosen its own settings they stay.
local pause = 110

local function watch()
    local sentinel = newproxy(true)
    getmetatable(sentinel).__gc = function()
        local kilobytes = collectgarbage("count")
        local next_pause = kilobytes < 4096 and 110 or kilobytes < 16384 and 130 or kilobytes < 65536 and 160 or 200
        local before = collectgarbage("setpause", next_pause)
        if before ~= pause then
            collectgarbage("setpause", before)      -- the program has chosen its own
            return
        end
        pause = next_pause
        watch()
    end
end

local pause_before = collectgarbage("setpause", pause)
if pause_before == 200 then
    watch()
else
    collectgarbage("setpause", pause_before)
end
local stepmul_before = collectgarbage("setstepmul", 1000)
if stepmul_before ~= 200 then collectgarbage("setstepmul", stepmul_before) end

-- Functions to call after a collection (the hooks' and custom functions' tables drain here).
memory.after_collect = {}

--- Collects Lua's garbage, handles included, and tells the engine what that cost.
function memory.collect()
    local start = now()
    collectgarbage("collect")
    local stop = now()
    C.pg_debt_clear(stop - start, start - last)
    last = stop
    for _, drain in ipairs(memory.after_collect) do drain() end
end

--- Raises the engine's last message at the user's line.
function memory.raise()
    return errors.raise(ffi.string(C.pg_last_error()))
end

C.pg_memory_collects(true)

--- What to do about a status that is not PG_OK: collects where the engine asks for it; true where the call is to
--- be made once more (memory ran out and has been collected); raises for any other failure.
---@param status integer
---@return boolean again
function memory.settle(status)
    if status > 0 then
        memory.collect()
        return false
    elseif status == C.PG_ERROR_MEMORY then
        memory.collect()
        C.pg_memory_collected()
        return true
    end
    return memory.raise()
end

--- The same after the second attempt.
function memory.settle_again(status)
    if status > 0 then return memory.collect() end
    return memory.raise()
end

--- For the machinery's functions, which are not tried again.
---@param status integer
function memory.check(status)
    if status > 0 then
        memory.collect()
    elseif status < 0 then
        memory.raise()
    end
end

--- Calls a function of the machinery that makes a tensor: twice, with a collection in between, where memory runs out.
function memory.call(f, ...)
    local status = f(...)
    if status ~= 0 and memory.settle(status) then memory.check(f(...)) end
end

-- ---- statistics ----

local stats = core.shared_buffer("pg_memory_stats")

local function device_name(device)
    if device ~= nil and type(device) ~= "string" then
        errors.fail("device: expected a name such as 'cpu', got a %s", type(device))
    end
    return device or "cpu"
end

local function read(device)
    memory.check(C.pg_memory_statistics(stats, device_name(device)))
    return stats
end

--- All counters of a device: bytes allocated, reserved, their peaks; allocations, frees, cache_hits,
--- system_allocations; allocated_ever (bytes), retries after the cache was emptied, failures; and, for the whole
--- process, live_tensors, live_storages, live_nodes.
---@param device string? "cpu"
---@return table<string, number>
function memory.memory_stats(device)
    local s = read(device)
    return {
        allocated = s.allocated, reserved = s.reserved,
        max_allocated = s.max_allocated, max_reserved = s.max_reserved,
        allocations = s.allocations, frees = s.frees,
        cache_hits = s.cache_hits, system_allocations = s.system_allocations,
        allocated_ever = s.allocated_ever, retries = s.retries, failures = s.failures,
        live_tensors = s.live_tensors, live_storages = s.live_storages, live_nodes = s.live_nodes,
    }
end

--- Bytes in live tensors.
function memory.memory_allocated(device) return read(device).allocated end

--- Bytes held from the system, the cache included.
function memory.memory_reserved(device) return read(device).reserved end

function memory.max_memory_allocated(device) return read(device).max_allocated end

function memory.max_memory_reserved(device) return read(device).max_reserved end

function memory.reset_peak_memory_stats(device)
    memory.check(C.pg_reset_peak_memory_stats(device_name(device)))
end

--- Gives the cache's unused blocks back to the system.
---@param device string? all devices by default
function memory.empty_cache(device)
    memory.check(C.pg_empty_cache(device and device_name(device)))
end

local function bytes(n)
    local units = { "B", "KiB", "MiB", "GiB", "TiB" }
    local k = 1
    while n >= 1024 and k < #units do
        n, k = n / 1024, k + 1
    end
    return (k == 1 and "%d %s" or "%.2f %s"):format(n, units[k])
end
memory.bytes = bytes

--- The counters as a table to read.
---@param device string? "cpu"
---@return string
function memory.memory_summary(device)
    local s = memory.memory_stats(device)
    local lines = { ("Memory of %s"):format(device_name(device)) }
    local function row(name, value) lines[#lines + 1] = ("  %-22s %14s"):format(name, value) end
    row("allocated", bytes(s.allocated))
    row("peak allocated", bytes(s.max_allocated))
    row("reserved", bytes(s.reserved))
    row("peak reserved", bytes(s.max_reserved))
    row("allocations", ("%d"):format(s.allocations))
    row("served by the cache", ("%d"):format(s.cache_hits))
    row("served by the system", ("%d"):format(s.system_allocations))
    row("frees", ("%d"):format(s.frees))
    row("live tensors", ("%d"):format(s.live_tensors))
    row("live storages", ("%d"):format(s.live_storages))
    row("live graph nodes", ("%d"):format(s.live_nodes))
    return table.concat(lines, "\n")
end

-- ---- scopes ----

local T = ffi.typeof("pg_tensor")
local istype = ffi.istype
local token = core.shared_buffer("int[1]")

-- Marks every tensor that can be reached from the value, through tables (keys, values and metatables are not
-- followed twice).
local function keep_all(value, seen)
    if istype(T, value) then
        memory.check(C.pg_scope_keep(value))
    elseif type(value) == "table" and not seen[value] then
        seen[value] = true
        for k, v in next, value do
            keep_all(k, seen)
            keep_all(v, seen)
        end
    end
end

---@class scope
--- pg.scope(f, ...) calls f(...) and frees, when it returns, every tensor made inside that cannot be reached from
--- what it returns, was not kept with pg.scope.keep(t), and is not stored in a `.grad`. A later use of a freed
--- tensor is an error. Without a closure: local s = pg.scope.enter() ... pg.scope.leave(s, results...).
local scope = {}
memory.scope = scope

--- Opens a scope and gives its token.
---@return integer
function scope.enter()
    memory.check(C.pg_scope_enter(token))
    return token[0]
end

--- Ends the scope; the tensors among the further arguments (and in their tables) outlive it.
function scope.leave(which, ...)
    if type(which) ~= "number" then errors.fail("scope.leave: expected the scope's token, got a %s", type(which)) end
    for k = 1, select("#", ...) do keep_all((select(k, ...)), {}) end
    memory.check(C.pg_scope_leave(which))
    return ...
end

--- The tensors of the value (a tensor, or tables of them) outlive the innermost scope. Returns the value.
function scope.keep(value)
    keep_all(value, {})
    return value
end

local function finish(which, ok, ...)
    if ok then return scope.leave(which, ...) end
    C.pg_scope_leave(which)
    error((...), 0)
end

local function resume(which, ok, ...)
    memory.check(C.pg_scope_resume(which))
    if ok then return ... end
    error((...), 0)
end

--- Calls f(...) so that what it makes belongs to no scope: for libraries that store tensors beyond a call.
function scope.outside(f, ...)
    memory.check(C.pg_scope_suspend(token))
    return resume(token[0], pcall(f, ...))
end

--- The same without a closure: which = scope.suspend() ... scope.resume(which).
function scope.suspend()
    memory.check(C.pg_scope_suspend(token))
    return token[0]
end

function scope.resume(which)
    memory.check(C.pg_scope_resume(which))
end

setmetatable(scope, {
    __call = function(_, f, ...)
        if type(f) ~= "function" then errors.fail("scope: expected a function, got a %s", type(f)) end
        return finish(scope.enter(), pcall(f, ...))
    end,
})

return memory
