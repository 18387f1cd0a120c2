--- What optimizers share: parameter groups, state, state dicts. PyTorch's torch.optim.Optimizer.
--
-- A group is a table {params = {...}, lr = ..., ...}: opt.param_groups[1].lr = 0.1 takes effect at the next step.
-- The state of a parameter p is opt.state[p.id]. What may change from step to step (lr, step count, ...) reaches the
-- kernel through a tensor on the parameters' device.

local ffi = require("ffi")
local check = require("perigee.check")
local core = require("perigee.ffi")
local graph = require("perigee.cuda.graph")
local parameter = require("perigee.nn.parameter")
local pg = require("perigee")

local C = core.C
local is_tensor = parameter.is_tensor
local fail, describe = check.fail, check.describe

local Optimizer = {}
Optimizer.__index = Optimizer

--- Makes a class of optimizers.
---@param name string
---@param positions string[] names of the options that may be given by position after params
---@param defaults table
function Optimizer.class(name, positions, defaults)
    local class = setmetatable({ _name = name }, { __index = Optimizer })
    local instances = {
        __index = class,
        __tostring = function(self) return self:_repr() end,
    }
    local names = { "params" }
    local all = { params = check.none }
    for i, position in ipairs(positions) do
        names[i + 1] = position
    end
    for key, value in pairs(defaults) do
        all[key] = value
    end
    getmetatable(class).__call = function(_, params, ...)
        local options = check.arguments(name, names, all, nil, ...)
        options.params = nil
        local self = setmetatable({
            defaults = options, param_groups = {}, state = {}, _hyper = {}, _known = {},
        }, instances)
        class._check(self, options)
        if is_tensor(params) then
            fail("%s: params must be a list of tensors or of groups, got a tensor", name)
        elseif type(params) ~= "table" then
            fail("%s: params must be a list of tensors or of groups, got %s", name, describe(params))
        elseif #params == 0 then
            fail("%s: got an empty parameter list", name)
        end
        if type(params[1]) == "table" then
            for _, group in ipairs(params) do
                self:add_param_group(group)
            end
        else
            self:add_param_group({ params = params })
        end
        return self
    end
    return class
end

--- Adds a group: {params = list or tensor, option = value, ...}; options left out take the optimizer's.
---@param group table
function Optimizer:add_param_group(group)
    if type(group) ~= "table" or group.params == nil then
        fail("%s: a group must be a table with params, got %s", self._name, describe(group))
    end
    local result = {}
    for key, value in pairs(group) do
        if key ~= "params" and self.defaults[key] == nil and key ~= "initial_lr" and key ~= "name" then
            local names = check.sorted_keys(self.defaults)
            fail("%s: unknown option %s in a group; known: params, %s", self._name, tostring(key),
                table.concat(names, ", "))
        end
        result[key] = value
    end
    for key, value in pairs(self.defaults) do
        if result[key] == nil then
            result[key] = value
        end
    end
    self:_check(result)
    local params = is_tensor(group.params) and { group.params } or group.params
    if type(params) ~= "table" then
        fail("%s: params must be a list of tensors, got %s", self._name, describe(params))
    end
    result.params = {}
    local seen = {}
    for i, p in ipairs(params) do
        if not is_tensor(p) then
            fail("%s: it can only optimize tensors, but params[%d] is %s", self._name, i, describe(p))
        elseif not p.is_leaf and not p.retains_grad then
            fail("%s: can't optimize a non-leaf tensor (params[%d])", self._name, i)
        elseif self._known[p.id] or seen[p.id] then
            fail("%s: some parameters appear in more than one place (params[%d] comes again)", self._name, i)
        end
        seen[p.id] = true
        result.params[i] = parameter.keep(p)
    end
    for id in pairs(seen) do
        self._known[id] = true
    end
    self.param_groups[#self.param_groups + 1] = result
end

--- Drops the gradients (or fills them with zeros).
---@param set_to_none boolean|table|nil default true
function Optimizer:zero_grad(set_to_none)
    if type(set_to_none) == "table" then
        set_to_none = check.options("zero_grad", set_to_none, { set_to_none = true }).set_to_none
    end
    for _, group in ipairs(self.param_groups) do
        for _, p in ipairs(group.params) do
            if set_to_none ~= false then
                p.grad = nil
            else
                local grad = p.grad
                if grad ~= nil then
                    grad:detach_()
                    grad:zero_()
                end
            end
        end
    end
end

--- One step. closure: computes the loss anew and gives it back; it is called with gradients on.
---@param closure function?
---@return any what the closure returned
function Optimizer:step(closure)
    local loss
    if closure then
        loss = pg.enable_grad(closure)
    end
    for k, group in ipairs(self.param_groups) do
        self:_step_group(group, k)
    end
    return loss
end

local function write_hyper(own, values)
    if own.memory ~= nil then   -- the host's memory: written as it is
        for i = 1, #values do
            own.memory[i - 1] = values[i]
        end
    else
        own.tensor:copy_(pg.tensor(values, { dtype = pg.float64, device = "cpu" }))
    end
end

-- A tensor of `n` hyperparameters on the group's device. `values` gives them: it is called now, or, where the step is
-- captured in a graph, before each of the graph's runs; it also counts the step. One tensor for each key, for the
-- optimizer's life: what was captured with it sees the new values.
function Optimizer:_hyper_tensor(key, group, n, values)
    local own = self._hyper[key]
    if not own then
        local tensor = graph.lasting(parameter.outside_scopes, pg.empty, { n }, {
            dtype = pg.float64, device = group.params[1].device,
        })
        own = { tensor = tensor, memory = ffi.cast("double *", C.pg_tensor_data_ptr(tensor)) }
        self._hyper[key] = own
    end
    if not graph.before_replay(function() write_hyper(own, values()) end) then
        write_hyper(own, values())
    end
    return own.tensor
end

local function make_state(p)
    return pg.zeros_like(p:detach())
end

--- A tensor of zeros like the parameter, outside of scopes: state that lives as long as the optimizer.
---@param p Tensor
---@return Tensor
function Optimizer._zeros(p)
    if graph.is_recording() then
        fail("an optimizer's first step cannot be captured in a graph: give pg.cuda.graph a warmup of at least 1")
    end
    return parameter.outside_scopes(make_state, p)
end

--- {state = {[i] = {...}}, param_groups = {{lr = ..., params = {0, 1, ...}}, ...}}: parameters are numbered from 0
-- over all groups. Tensors are the optimizer's own.
---@return table
function Optimizer:state_dict()
    local groups, state, number = {}, {}, 0
    for k, group in ipairs(self.param_groups) do
        local packed = { params = {} }
        for key, value in pairs(group) do
            if key ~= "params" then
                packed[key] = value
            end
        end
        for i, p in ipairs(group.params) do
            packed.params[i] = number
            local own = self.state[p.id]
            if own then
                local copy = {}
                for key, value in pairs(own) do
                    copy[key] = value
                end
                state[number] = copy
            end
            number = number + 1
        end
        groups[k] = packed
    end
    return { state = state, param_groups = groups }
end

local function copy_tensor(value, p, key)
    if key == "step" then
        return value:item()
    end
    local floating = p.dtype.is_floating_point and value.dtype.is_floating_point
    return value:detach():to(p.device, floating and p.dtype or value.dtype):clone()
end

--- Takes over what state_dict gave: options of the groups, state of the parameters (copied, converted to their dtype
-- and device).
---@param state_dict table
function Optimizer:load_state_dict(state_dict)
    if type(state_dict) ~= "table" or type(state_dict.param_groups) ~= "table" or type(state_dict.state) ~= "table" then
        fail("load_state_dict: expected a table with state and param_groups, got %s", describe(state_dict))
    elseif #state_dict.param_groups ~= #self.param_groups then
        fail("loaded state dict has a different number of parameter groups (%d, the optimizer has %d)",
            #state_dict.param_groups, #self.param_groups)
    end
    local by_number = {}
    for k, group in ipairs(self.param_groups) do
        local saved = state_dict.param_groups[k].params or {}
        if #saved ~= #group.params then
            fail("loaded state dict contains a parameter group that doesn't match the size of optimizer's group "
                .. "(group %d: %d, the optimizer has %d)", k - 1, #saved, #group.params)
        end
        for i, number in ipairs(saved) do
            by_number[number] = group.params[i]
        end
    end
    local state = {}
    for number, saved in pairs(state_dict.state) do
        local p = by_number[number]
        if not p then
            fail("loaded state dict has state for parameter %s, which is in no group", tostring(number))
        end
        local own = {}
        for key, value in pairs(saved) do
            if is_tensor(value) then
                if key ~= "step" and table.concat(value.shape, ",") ~= table.concat(p.shape, ",") then
                    fail("loaded state dict: %s of parameter %d has shape [%s], the parameter [%s]", key, number,
                        table.concat(value.shape, ", "), table.concat(p.shape, ", "))
                end
                value = parameter.outside_scopes(copy_tensor, value, p, key)
            end
            own[key] = value
        end
        state[p.id] = own
    end
    for k, group in ipairs(self.param_groups) do
        for key, value in pairs(state_dict.param_groups[k]) do
            if key ~= "params" then
                group[key] = value
            end
        end
    end
    self.state = state
end

local function option_text(value)
    if type(value) == "table" then
        local parts = {}
        for i, item in ipairs(value) do
            parts[i] = option_text(item)
        end
        return "(" .. table.concat(parts, ", ") .. ")"
    elseif type(value) == "boolean" then
        return value and "True" or "False"
    elseif type(value) == "number" then
        return value % 1 == 0 and ("%d"):format(value) or check.float_repr(value)
    end
    return tostring(value)
end

function Optimizer:_repr()
    local lines = { self._name .. " (" }
    for k, group in ipairs(self.param_groups) do
        lines[#lines + 1] = ("Parameter Group %d"):format(k - 1)
        for _, key in ipairs(check.sorted_keys(group)) do
            if key ~= "params" then
                lines[#lines + 1] = ("    %s: %s"):format(key, option_text(group[key]))
            end
        end
        lines[#lines + 1] = ""
    end
    lines[#lines] = ")"
    return table.concat(lines, "\n")
end

-- ---- checks that the optimizers share ----

function Optimizer._check_rate(name, option, value, low, high_open)
    if type(value) ~= "number" or value ~= value or value < low or (high_open and value >= high_open) then
        fail("%s: invalid %s: expected %s, got %s", name, option,
            high_open and ("a number in [%g, %g)"):format(low, high_open) or ("a number of at least %g"):format(low),
            describe(value))
    end
end

function Optimizer._check_betas(name, betas)
    if type(betas) ~= "table" or #betas ~= 2 then
        fail("%s: betas must be a list of two numbers, got %s", name, describe(betas))
    end
    for i, beta in ipairs(betas) do
        Optimizer._check_rate(name, ("beta parameter at index %d"):format(i - 1), beta, 0, 1)
    end
end

return Optimizer
