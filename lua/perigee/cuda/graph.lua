--- pg.cuda.graph: a function's kernels, captured once and launched together from then on.
--
--   local step = pg.cuda.graph(function(x, y) ... return loss end)
--   for x, y in loader:iter() do local loss = step(x, y) end
--
-- step(...) does what the function would do, call for call. The first call (`warmup` of them) runs the function as it
-- is; the next one captures it and runs what was captured, the others only that: the Lua code does not run again. So
--
-- - arguments are tensors, tables of tensors, or values that stay as they were; a tensor's elements are copied into
--   the graph's own, so its shape and dtype stay too;
-- - results are the graph's own tensors, written anew by each call: read or clone them before the next;
-- - nothing may be read from the device inside (item, printing, x:to("cpu"), boolean masks): that is an error;
-- - numbers stay as they were captured, but for what optimizers are given (learning rate, step, ...) and what random
--   numbers are drawn from: these are brought up to date. A schedule's step(), or whatever else counts calls in Lua,
--   belongs outside.

local ffi = require "ffi"
local core = require "perigee.ffi"
local errors = require "perigee.errors"
local memory = require "perigee.memory"
local wrapper = require "perigee.wrapper"

local C = core.C
local istype = ffi.istype
local T = ffi.typeof("pg_tensor")

local M = {}

-- The graph that this Lua state captures.
local recording

--- While a graph is captured: f is to be called before each of its runs, and true is the answer.
---@param f function
---@return boolean
function M.before_replay(f)
    if not recording then return false end
    recording.refresh[#recording.refresh + 1] = f
    return true
end

local function restore(before, ok, ...)
    C.pg_graph_lasting(before)
    if ok then return ... end
    error((...), 0)
end

--- Calls f(...) so that what it makes keeps its contents from one run of the graph to the next. (What is made during a
--- capture otherwise shares its memory with what was dropped earlier in it, which each run writes.)
function M.lasting(f, ...)
    if not recording then return f(...) end
    return restore(C.pg_graph_lasting(true), pcall(f, ...))
end

--- Is a graph being captured?
function M.is_recording() return recording ~= nil end

---@class cuda.Graph
local Graph = {}
Graph.__index = Graph

local known = { warmup = true, device = true }

--- A function that does what f does, captured after `warmup` calls.
---@param f function
---@param options table? warmup: how many calls run f as it is (1); device
---@return cuda.Graph to be called as f is
function M.new(f, options)
    if type(f) ~= "function" then errors.fail("graph: expected a function, got %s", wrapper.describe(f)) end
    options = options or {}
    wrapper.check_options(options, known, "graph")
    local warmup = options.warmup or 1
    if type(warmup) ~= "number" or warmup % 1 ~= 0 or warmup < 0 then
        errors.fail("graph: warmup: expected a number of calls, got %s", wrapper.describe(warmup))
    end
    local why = C.pg_cuda_why_not()
    if why ~= nil then errors.fail("graph: a graph needs a CUDA device: %s", ffi.string(why)) end
    return setmetatable({ f = f, left = warmup, device = options.device, refresh = {}, captured = false }, Graph)
end

function Graph:__tostring()
    return ("<pg.cuda.graph, %s>"):format(self.captured and "captured" or "not captured yet")
end

local function text(t) return ("%s %s on %s"):format(tostring(t.dtype), tostring(t.shape), t.device) end

-- The graph's own copy of the arguments.
local function own(value, seen)
    if istype(T, value) then
        if value.device == "cpu" then
            return errors.fail("graph: expected arguments on a CUDA device, got a tensor on the cpu: it would be read "
                .. "once only; move it with x:to(\"cuda\") first")
        end
        return value:detach():clone()
    elseif type(value) == "table" and getmetatable(value) == nil then
        local copy = {}
        seen[value] = copy
        for k, v in pairs(value) do copy[k] = seen[v] or own(v, seen) end
        return copy
    end
    return value
end

-- What is given now is copied into what was captured.
local function update(mine, given, place)
    if istype(T, mine) then
        if not istype(T, given) then
            errors.fail("graph: %s: a Tensor was captured (%s), got %s", place, text(mine), wrapper.describe(given))
        end
        local same = mine.dtype == given.dtype and #mine.shape == #given.shape
        for k = 1, #mine.shape do same = same and mine.shape[k] == given.shape[k] end
        if not same then errors.fail("graph: %s: captured with %s, got %s", place, text(mine), text(given)) end
        mine:copy_(given:detach(), true)
    elseif type(mine) == "table" and getmetatable(mine) == nil then
        if type(given) ~= "table" then
            errors.fail("graph: %s: a table was captured, got %s", place, wrapper.describe(given))
        end
        for k, v in pairs(mine) do update(v, given[k], ("%s[%s]"):format(place, tostring(k))) end
        for k in pairs(given) do
            if mine[k] == nil then errors.fail("graph: %s[%s] was not there when captured", place, tostring(k)) end
        end
    elseif mine ~= given then
        errors.fail("graph: %s: captured with %s, got %s", place, tostring(mine), tostring(given))
    end
end

local slot = core.shared_buffer("pg_graph *[1]")

local function capture(self, n, ...)
    if recording then errors.fail("graph: a graph is being captured already") end
    self.n, self.arguments = n, memory.scope.outside(own, { ... }, {})
    memory.check(C.pg_graph_begin(slot, self.device))
    local pointer = ffi.gc(slot[0], C.pg_graph_free)
    recording = self
    local results = { pcall(memory.scope.outside, self.f, unpack(self.arguments, 1, n)) }
    recording = nil
    local status = C.pg_graph_end(pointer, results[1])
    if not results[1] then
        self.arguments, self.refresh = nil, {}
        error(results[2], 0)
    end
    memory.check(status)
    local last = 0
    for k in pairs(results) do last = math.max(last, k) end
    self.results, self.results_n, self.pointer, self.captured = results, last, pointer, true
end

--- Runs what was captured once more, with the arguments as they are.
function Graph:replay()
    if not self.captured then errors.fail("graph: nothing is captured yet: call it first") end
    for _, f in ipairs(self.refresh) do f() end
    memory.check(C.pg_graph_replay(self.pointer))
    return unpack(self.results, 2, self.results_n)
end

--- Drops what was captured and its memory; the next call runs the function as it is, and so on from the start.
function Graph:reset()
    self.results, self.arguments, self.pointer, self.refresh, self.captured = nil, nil, nil, {}, false
    self.left = math.max(self.left, 1)
end

function Graph.__call(self, ...)
    local n = select("#", ...)
    if self.captured then
        if n ~= self.n then errors.fail("graph: captured with %d arguments, got %d", self.n, n) end
        for k = 1, n do update(self.arguments[k], (select(k, ...)), "argument " .. k) end
    elseif self.left > 0 then
        self.left = self.left - 1
        return self.f(...)
    else
        capture(self, n, ...)
    end
    return self:replay()
end

return M
