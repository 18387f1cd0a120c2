--- Gradients: regions, backward, grad, hooks, custom functions, gradcheck.
--
-- The engine never calls into Lua. A backward run is an object that asks, step by step, for what only Lua can do
-- (hooks and custom functions); the loop below answers.

local ffi = require "ffi"
local core = require "perigee.ffi"
local errors = require "perigee.errors"
local memory = require "perigee.memory"
local tensor = require "perigee.tensor"
local wrapper = require "perigee.wrapper"

local C = core.C
local istype = ffi.istype
local T = ffi.typeof("pg_tensor")
local MAGIC = C.PG_HANDLE_MAGIC

local autograd = {}

-- ---- regions ----

local token = core.shared_buffer("int[1]")

local function leave(mode, ok, ...)
    local s = C.pg_grad_mode_leave(mode)
    if not ok then error((...), 0) end
    if s ~= 0 then memory.check(s) end
    return ...
end

local function region(name, enabled, doc)
    local self = { doc = doc }

    --- Enters without a closure; gives the token that leave takes.
    function self.enter()
        memory.check(C.pg_grad_mode_enter(token, enabled))
        return token[0]
    end

    function self.leave(mode)
        if type(mode) ~= "number" then
            errors.fail("%s.leave: expected the token, got %s", name, wrapper.describe(mode))
        end
        memory.check(C.pg_grad_mode_leave(mode))
    end

    return setmetatable(self, {
        __call = function(_, f, ...)
            if type(f) ~= "function" and not (type(f) == "table" and getmetatable(f) and getmetatable(f).__call) then
                errors.fail("%s: expected a function, got %s", name, wrapper.describe(f))
            end
            memory.check(C.pg_grad_mode_enter(token, enabled))
            return leave(token[0], pcall(f, ...))
        end,
    })
end

--- pg.no_grad(f, ...) calls f(...) without recording gradients and gives back what it returns; restores on error.
--- Without a closure: local mode = pg.no_grad.enter() ... pg.no_grad.leave(mode).
autograd.no_grad = region("no_grad", 0)
--- The opposite, inside no_grad.
autograd.enable_grad = region("enable_grad", 1)

function autograd.is_grad_enabled()
    return C.pg_is_grad_enabled() ~= 0
end

--- Sets the mode; with a function behind it, only while that runs.
---@param enabled boolean
function autograd.set_grad_enabled(enabled, f, ...)
    if type(enabled) ~= "boolean" then
        errors.fail("set_grad_enabled: expected a boolean, got %s", wrapper.describe(enabled))
    end
    if f then
        return (enabled and autograd.enable_grad or autograd.no_grad)(f, ...)
    end
    memory.check(C.pg_set_grad_enabled(enabled and 1 or 0))
end

-- ---- hooks and custom functions: Lua's side, by the engine's integer ids ----

local hooks = {}        -- id -> list of { f }
local functions = {}    -- id -> ctx
local next_function = 0

local DEAD = 256
local dead = core.shared_buffer("double[?]", DEAD)

local function drain()
    while true do
        local n = C.pg_dead_ids(dead, DEAD)
        for k = 0, n - 1 do
            hooks[dead[k]] = nil
            functions[dead[k]] = nil
        end
        if n < DEAD then return end
    end
end
autograd.drain = drain
memory.after_collect[#memory.after_collect + 1] = drain

--- How many hooks and custom functions are held (for specs on leaks).
function autograd.held()
    drain()
    local a, b = 0, 0
    for _ in pairs(hooks) do a = a + 1 end
    for _ in pairs(functions) do b = b + 1 end
    return a, b
end

local Hook = {}
Hook.__index = Hook

--- Removes the hook.
function Hook:remove()
    local list = hooks[self.id]
    if not list then return end
    for k, item in ipairs(list) do
        if item == self then
            table.remove(list, k)
            return
        end
    end
end

local id_slot = core.shared_buffer("double[1]")

--- Calls f(grad) whenever the gradient of the tensor has been computed; what it returns, if a tensor, takes the
--- gradient's place.
---@param f fun(grad: Tensor): Tensor?
---@return table handle with a method remove
function tensor.methods.register_hook(t, f)
    if type(f) ~= "function" then errors.fail("register_hook: expected a function, got %s", wrapper.describe(f)) end
    memory.check(C.pg_hook_id(id_slot, t))
    local id = id_slot[0]
    local list = hooks[id] or { is_leaf = t.is_leaf }
    hooks[id] = list
    local hook = setmetatable({ id = id, f = f }, Hook)
    list[#list + 1] = hook
    return hook
end

-- ---- the loop ----

local step = core.shared_buffer("pg_backward_step")

local function give(run, k, grad)
    memory.check(C.pg_backward_give(run, k, grad))
end

local function read_grad(run, k)
    local out = T(MAGIC)
    memory.check(C.pg_backward_grad(out, run, k))
    if out.impl == nil then return nil end
    return out
end

local function run_hooks(run, id)
    local list = hooks[id]
    if not list then return end
    local grad, changed = read_grad(run, 0), false
    if grad == nil then return end
    -- A hook may remove itself.
    local now = {}
    for k, hook in ipairs(list) do now[k] = hook end
    for _, hook in ipairs(now) do
        local result = hook.f(grad)
        if result ~= nil then
            if not istype(T, result) then
                errors.fail("a gradient hook returns a Tensor or nothing, got %s", wrapper.describe(result))
            end
            grad, changed = result, true
        end
    end
    if changed then give(run, 0, grad) end
end

local function run_custom(run, id, n_outputs, n_inputs)
    local ctx = functions[id]
    if not ctx then errors.fail("backward: the custom function's context is gone") end
    local grads = {}
    for k = 1, n_outputs do grads[k] = read_grad(run, k - 1) end
    ctx.run = run
    local results = { pcall(ctx.class.backward, ctx, unpack(grads, 1, n_outputs)) }
    ctx.run = nil
    if not results[1] then error(results[2], 0) end
    local arguments = ctx.n_arguments
    for k = arguments + 2, table.maxn(results) do
        if results[k] ~= nil then
            errors.fail("%s.backward: gave %d gradients for the %d arguments of forward", ctx.class.name,
                table.maxn(results) - 1, arguments)
        end
    end
    -- The engine knows the tensors among forward's arguments only.
    for k = 1, n_inputs do
        local place = ctx.tensor_places[k]
        local grad = results[place + 1]
        if grad ~= nil and not istype(T, grad) then
            errors.fail("%s.backward: expected a Tensor or nil as gradient %d, got %s", ctx.class.name, place,
                wrapper.describe(grad))
        end
        give(run, k - 1, grad)
    end
    for place = 1, arguments do
        if not ctx.is_tensor[place] and results[place + 1] ~= nil then
            errors.fail("%s.backward: argument %d of forward is no Tensor: its gradient must be nil", ctx.class.name,
                place)
        end
    end
end

-- A hook that holds its own tensor keeps it alive, and the tensor keeps the hook: a cycle that no collector sees. It
-- ends here: a graph that is not retained runs once, so the hooks of its inner tensors have run for the last time.
local function forget(ran)
    for _, id in ipairs(ran) do
        if hooks[id] and not hooks[id].is_leaf then hooks[id] = nil end
    end
end

local function drive(run, retain_graph, create_graph)
    local ran = {}
    while true do
        local s = C.pg_backward_next(run, step)
        if s ~= 0 then memory.check(s) end
        local kind = step.kind
        if kind == C.PG_STEP_DONE then
            if not retain_graph then forget(ran) end
            return
        end
        local hook, custom, n_outputs, n_inputs = step.hook, step.custom, step.n_outputs, step.n_inputs
        local mode = create_graph and autograd.enable_grad or autograd.no_grad
        if kind == C.PG_STEP_HOOK then
            ran[#ran + 1] = hook
            mode(run_hooks, run, hook)
        else
            mode(run_custom, run, custom, n_outputs, n_inputs)
        end
    end
end

local function captured(run, n)
    local list = {}
    for k = 1, n do
        local out = T(MAGIC)
        memory.check(C.pg_backward_captured(out, run, k - 1))
        if out.impl ~= nil then list[k] = out end
    end
    return list
end

local function finish(run, n, ok, ...)
    local list
    if ok and n then
        local read
        read, list = pcall(captured, run, n)
        if not read then
            C.pg_backward_end(run)
            error(list, 0)
        end
    end
    C.pg_backward_end(run)
    drain()
    if not ok then error((...), 0) end
    return list
end

local function tensors_of(list, where, name)
    local n = table.maxn(list)
    local buffer = ffi.new("const pg_tensor *[?]", n + 1)
    for k = 1, n do
        if list[k] ~= nil then
            if not istype(T, list[k]) then
                errors.fail("%s: %s: expected Tensors, got %s at [%d]", where, name, wrapper.describe(list[k]), k)
            end
            buffer[k - 1] = list[k]
        end
    end
    return buffer, n
end

--- One run: roots, their gradients (or nil), inputs (or nil: accumulate into leaves).
local function run_backward(where, roots, grads, inputs, retain_graph, create_graph, allow_unused)
    local c_roots, n_roots = tensors_of(roots, where, "tensors")
    for k = 1, n_roots do
        if roots[k] == nil then errors.fail("%s: nil at [%d] of the tensors", where, k) end
    end
    local c_grads, n_grads
    if grads then
        c_grads = tensors_of(grads, where, "gradients")
        n_grads = table.maxn(grads)
        if n_grads > n_roots then errors.fail("%s: %d gradients for %d tensors", where, n_grads, n_roots) end
        -- The array has room for the roots without one.
        local all = ffi.new("const pg_tensor *[?]", n_roots + 1)
        for k = 0, n_grads - 1 do all[k] = c_grads[k] end
        c_grads, n_grads = all, n_roots
    end
    local c_inputs, n_inputs
    if inputs then c_inputs, n_inputs = tensors_of(inputs, where, "inputs") end
    local run = ffi.new("pg_backward_run *[1]")
    memory.check(C.pg_backward_begin(run, c_roots, n_roots, c_grads, n_grads or 0, c_inputs, n_inputs or 0,
        retain_graph, create_graph, allow_unused))
    return finish(run[0], n_inputs, pcall(drive, run[0], retain_graph, create_graph))
end

local function boolean(where, name, value, default)
    if value == nil then return default end
    if type(value) ~= "boolean" then
        errors.fail("%s: %s: expected a boolean, got %s", where, name, wrapper.describe(value))
    end
    return value
end

local function list_of(where, name, value)
    if istype(T, value) then return { value } end
    if type(value) ~= "table" then
        errors.fail("%s: %s: expected a Tensor or a list of them, got %s", where, name, wrapper.describe(value))
    end
    return value
end

local known_backward = { gradient = true, retain_graph = true, create_graph = true, inputs = true }

--- Computes the gradients of the leaves and adds them to their .grad.
---@param gradient Tensor? the gradient of this tensor; ones for one element
---@param options table? retain_graph, create_graph, inputs (a list: only these get a .grad)
function tensor.methods.backward(t, gradient, options, surplus)
    if not istype(T, t) then errors.fail("backward: expected a Tensor, got %s", wrapper.describe(t)) end
    if type(gradient) == "table" and options == nil then gradient, options = nil, gradient end
    if surplus ~= nil then errors.fail("backward: too many arguments: takes a gradient and a table of options") end
    if options ~= nil then
        if type(options) ~= "table" then
            errors.fail("backward: expected a table of options, got %s", wrapper.describe(options))
        end
        wrapper.check_options(options, known_backward, "backward")
        if options.gradient ~= nil then
            if gradient ~= nil then errors.fail("backward: gradient is given twice, by position and as an option") end
            gradient = options.gradient
        end
    end
    if gradient ~= nil and not istype(T, gradient) then
        errors.fail("backward: gradient: expected a Tensor, got %s", wrapper.describe(gradient))
    end
    options = options or {}
    local create_graph = boolean("backward", "create_graph", options.create_graph, false)
    local retain_graph = boolean("backward", "retain_graph", options.retain_graph, create_graph)
    local inputs = options.inputs ~= nil and list_of("backward", "inputs", options.inputs) or nil
    if inputs then
        if #inputs == 0 then errors.fail("backward: inputs is empty") end
        -- Captured, then added to .grad: the other leaves are left alone.
        local grads = run_backward("backward", { t }, gradient and { gradient } or nil, inputs, retain_graph,
            create_graph, true)
        for k, input in ipairs(inputs) do
            if grads[k] ~= nil then
                local old = input.grad
                input.grad = old and old + grads[k] or grads[k]
            end
        end
        return
    end
    run_backward("backward", { t }, gradient and { gradient } or nil, nil, retain_graph, create_graph, true)
end

--- The same from several tensors at once.
---@param tensors Tensor[]
---@param gradients Tensor[]?
---@param options table? retain_graph, create_graph
function autograd.backward(tensors, gradients, options)
    options = options or {}
    wrapper.check_options(options, known_backward, "backward")
    local create_graph = boolean("backward", "create_graph", options.create_graph, false)
    local retain_graph = boolean("backward", "retain_graph", options.retain_graph, create_graph)
    if gradients ~= nil then gradients = list_of("backward", "gradients", gradients) end
    run_backward("backward", list_of("backward", "tensors", tensors), gradients, nil, retain_graph, create_graph, true)
end

local known_grad = { grad_outputs = true, retain_graph = true, create_graph = true, allow_unused = true,
    materialize_grads = true }

--- The gradients of the outputs' sum with respect to the inputs; leaves keep their .grad. Several results are
--- several returns.
---@param outputs Tensor|Tensor[]
---@param inputs Tensor|Tensor[]
---@param options table? grad_outputs, retain_graph, create_graph, allow_unused
---@return Tensor ...
function autograd.grad(outputs, inputs, options)
    options = options or {}
    if type(options) ~= "table" then
        errors.fail("grad: expected a table of options, got %s", wrapper.describe(options))
    end
    wrapper.check_options(options, known_grad, "grad")
    local create_graph = boolean("grad", "create_graph", options.create_graph, false)
    local retain_graph = boolean("grad", "retain_graph", options.retain_graph, create_graph)
    local materialize = boolean("grad", "materialize_grads", options.materialize_grads, false)
    local allow_unused = boolean("grad", "allow_unused", options.allow_unused, materialize)
    local grads = options.grad_outputs
    if grads ~= nil then grads = list_of("grad", "grad_outputs", grads) end
    local wanted = list_of("grad", "inputs", inputs)
    if #wanted == 0 then errors.fail("grad: inputs is empty") end
    local results = run_backward("grad", list_of("grad", "outputs", outputs), grads, wanted, retain_graph, create_graph,
        allow_unused)
    if materialize then
        for k, input in ipairs(wanted) do results[k] = results[k] or wrapper.get("zeros_like")(input) end
    end
    return unpack(results, 1, #wanted)
end

-- ---- custom functions ----

local Context = {}
Context.__index = Context

--- Keeps tensors (inputs or outputs of forward, or others) for backward, where ctx.saved_tensors lists them. Call
--- it once.
function Context:save_for_backward(...)
    if self.saving == nil then errors.fail("save_for_backward: call it in forward") end
    local n = select("#", ...)
    local list = { n = n }
    for k = 1, n do
        local t = (select(k, ...))
        if t ~= nil and not istype(T, t) then
            errors.fail("save_for_backward: expected Tensors, got %s at [%d]", wrapper.describe(t), k)
        end
        list[k] = t or false
    end
    self.saving = list
end

--- These outputs have no gradient.
function Context:mark_non_differentiable(...)
    if self.saving == nil then errors.fail("mark_non_differentiable: call it in forward") end
    for k = 1, select("#", ...) do
        local t = (select(k, ...))
        if not istype(T, t) then
            errors.fail("mark_non_differentiable: expected Tensors, got %s", wrapper.describe(t))
        end
        self.plain[#self.plain + 1] = t
    end
end

--- These inputs were changed in place.
function Context:mark_dirty(...)
    if self.saving == nil then errors.fail("mark_dirty: call it in forward") end
    for k = 1, select("#", ...) do
        local t = (select(k, ...))
        if not istype(T, t) then errors.fail("mark_dirty: expected Tensors, got %s", wrapper.describe(t)) end
        memory.check(C.pg_mark_dirty(t))
    end
end

local context_fields = {}

function context_fields.saved_tensors(self)
    if not self.run then errors.fail("saved_tensors: read it in backward") end
    local list, at = {}, 0
    for k = 1, self.n_saved do
        if self.saved_present[k] then
            local out = T(MAGIC)
            memory.check(C.pg_custom_saved(out, self.run, at))
            at = at + 1
            list[k] = out
        end
    end
    return list
end

local context_metatable = {
    __index = function(self, key)
        local method = Context[key]
        if method then return method end
        local field = context_fields[key]
        if field then return field(self) end
        return nil
    end,
}

local function pack(...)
    return { n = select("#", ...), ... }
end

local function apply(class, ...)
    local n = select("#", ...)
    local arguments = { ... }
    local ctx = setmetatable({
        class = class, saving = false, plain = {}, n_arguments = n, is_tensor = {}, tensor_places = {},
    }, context_metatable)
    local inputs, needs = {}, {}
    local any = false
    for k = 1, n do
        local v = arguments[k]
        if istype(T, v) then
            ctx.is_tensor[k] = true
            inputs[#inputs + 1] = v
            ctx.tensor_places[#inputs] = k
            needs[k] = C.pg_tensor_requires_grad(v) > 0
            any = any or needs[k]
        else
            needs[k] = false
        end
    end
    ctx.needs_input_grad = needs
    local outputs = pack(autograd.no_grad(class.forward, ctx, ...))
    local saving, plain = ctx.saving or { n = 0 }, ctx.plain
    ctx.saving, ctx.plain = nil, nil
    local tensors = {}
    for k = 1, outputs.n do
        local v = outputs[k]
        if istype(T, v) then
            tensors[#tensors + 1] = v
        elseif v ~= nil then
            errors.fail("%s.forward: expected Tensors as results, got %s", class.name, wrapper.describe(v))
        end
    end
    if #tensors == 0 then errors.fail("%s.forward: gave no Tensor", class.name) end
    if not any or not autograd.is_grad_enabled() then return unpack(outputs, 1, outputs.n) end

    -- Outputs get a handle of their own: an output that is an input is replaced by an alias.
    local results = {}
    for k, v in ipairs(tensors) do
        local handle = T(MAGIC)
        memory.check(C.pg_tensor_retain(handle, v))
        results[k] = handle
    end
    local saved, present = {}, {}
    for k = 1, saving.n do
        present[k] = saving[k] and true or false
        if saving[k] then saved[#saved + 1] = saving[k] end
    end
    ctx.n_saved, ctx.saved_present = saving.n, present
    local flat = ffi.new("int64_t[?]", #plain + 1)
    for k, t in ipairs(plain) do
        local place
        for j, v in ipairs(tensors) do
            if v == t then place = j - 1 end
        end
        if not place then
            errors.fail("%s: mark_non_differentiable: a Tensor that forward does not return", class.name)
        end
        flat[k - 1] = place
    end
    local c_inputs, n_inputs = tensors_of(inputs, class.name, "inputs")
    local c_saved, n_saved = tensors_of(saved, class.name, "saved tensors")
    local c_outputs = ffi.new("pg_tensor *[?]", #results)
    for k, v in ipairs(results) do c_outputs[k - 1] = v end
    next_function = next_function - 1       -- ids of hooks are positive
    local id = next_function
    functions[id] = ctx
    local s = C.pg_custom_record(class.name, id, c_inputs, n_inputs, c_outputs, #results, c_saved, n_saved, flat,
        #plain)
    if s < 0 then
        functions[id] = nil
        memory.raise()
    end
    local place = 0
    for k = 1, outputs.n do
        if istype(T, outputs[k]) then
            place = place + 1
            outputs[k] = results[place]
        end
    end
    return unpack(outputs, 1, outputs.n)
end

--- A custom function: local Exp = pg.autograd.Function("Exp"), then Exp.forward(ctx, ...) and Exp.backward(ctx,
--- ...), which gives a gradient (or nil) for each of forward's arguments. Used as Exp.apply(x) or Exp(x).
---@param name string
---@return table
function autograd.Function(name)
    if type(name) ~= "string" then
        errors.fail("Function: expected a name, got %s", wrapper.describe(name))
    end
    local class = { name = name }
    local function call(...)
        for _, part in ipairs { "forward", "backward" } do
            if type(rawget(class, part)) ~= "function" then errors.fail("%s: %s.%s is missing", name, name, part) end
        end
        return apply(class, ...)
    end
    class.apply = call
    return setmetatable(class, {
        __call = function(_, ...) return call(...) end,
        __tostring = function() return "Function " .. name end,
    })
end

-- Loaded when first used.
for _, name in ipairs { "gradcheck", "gradgradcheck" } do
    autograd[name] = function(...)
        return require("perigee.gradcheck")[name](...)
    end
end

return autograd
