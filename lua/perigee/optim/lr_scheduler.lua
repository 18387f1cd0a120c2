--- Learning rate schedules over an optimizer's groups. PyTorch's torch.optim.lr_scheduler: making one sets the first
-- rate, and scheduler:step() after each optimizer:step() sets the next. Schedules that are stated as a factor from
-- one epoch to the next (StepLR, CosineAnnealingLR, LinearLR) can be chained: each changes what the others left.

local check = require("perigee.check")

local M = {}

local Scheduler = {}
Scheduler.__index = Scheduler

local function is_optimizer(value)
    return type(value) == "table" and type(rawget(value, "param_groups")) == "table"
end

-- Sets the groups' rates to those of the schedule's epoch.
function Scheduler:_update(epoch)
    local rates
    if epoch then
        self.last_epoch = epoch
        rates = self:_closed_form()
    else
        self.last_epoch = self.last_epoch + 1
        rates = self:_rates()
    end
    self._last_lr = {}
    for k, group in ipairs(self.optimizer.param_groups) do
        group.lr = rates[k]
        self._last_lr[k] = rates[k]
    end
end

function Scheduler:_initial_step()
    self._step_count = 0
    self._is_initial = true
    self:step()
    self._is_initial = false
end

--- The next epoch's rates.
function Scheduler:step()
    self._step_count = self._step_count + 1
    self:_update()
end

--- The rates that were set last, one a group.
---@return number[]
function Scheduler:get_last_lr()
    return { unpack(self._last_lr) }
end

-- Rates by group: fn(base_lr, lr now, group number).
function Scheduler:_map(fn)
    local rates = {}
    for k, group in ipairs(self.optimizer.param_groups) do
        rates[k] = fn(self.base_lrs[k], group.lr, k)
    end
    return rates
end

function Scheduler:_unchanged()
    return self:_map(function(_, lr) return lr end)
end

--- Everything but the optimizer and functions: numbers, lists.
---@return table
function Scheduler:state_dict()
    local state = {}
    for key, value in pairs(self) do
        if key ~= "optimizer" and key ~= "_schedulers" and key ~= "lr_lambdas" then
            state[key] = type(value) == "table" and { unpack(value) } or value
        end
    end
    if self._schedulers then
        state._schedulers = {}
        for k, scheduler in ipairs(self._schedulers) do
            state._schedulers[k] = scheduler:state_dict()
        end
    end
    return state
end

--- Takes over what state_dict gave.
---@param state table
function Scheduler:load_state_dict(state)
    if type(state) ~= "table" or type(state.last_epoch) ~= "number" then
        check.fail("load_state_dict: expected what a scheduler's state_dict gave, got %s", check.describe(state))
    elseif #(state._schedulers or {}) ~= #(self._schedulers or {}) then
        check.fail("load_state_dict: the state has %d schedulers, this one %d", #(state._schedulers or {}),
            #(self._schedulers or {}))
    end
    for key, value in pairs(state) do
        if key ~= "_schedulers" then
            self[key] = type(value) == "table" and { unpack(value) } or value
        end
    end
    for k, scheduler in ipairs(self._schedulers or {}) do
        scheduler:load_state_dict(state._schedulers[k])
    end
end

-- Makes a class: name, its arguments after the optimizer, setup(self, arguments).
local function define(name, positions, defaults, setup)
    local class = setmetatable({}, { __index = Scheduler })
    local instances = { __index = class, __tostring = function() return name end }
    local names, all = { "optimizer" }, { optimizer = check.none, last_epoch = -1 }
    for _, position in ipairs(positions) do
        names[#names + 1] = position
    end
    names[#names + 1] = "last_epoch"
    for key, value in pairs(defaults) do
        all[key] = value
    end
    getmetatable(class).__call = function(_, optimizer, ...)
        if not is_optimizer(optimizer) then
            check.fail("%s: expected an optimizer, got %s", name, check.describe(optimizer))
        end
        local o = check.arguments(name, names, all, nil, ...)
        local last_epoch = check.integer(name, "last_epoch", o.last_epoch, -1)
        local self = setmetatable({ optimizer = optimizer, base_lrs = {}, last_epoch = last_epoch }, instances)
        for k, group in ipairs(optimizer.param_groups) do
            if group.initial_lr == nil then
                if last_epoch ~= -1 then
                    check.fail("%s: 'initial_lr' is not specified in param_groups[%d] when resuming from last_epoch %d",
                        name, k, last_epoch)
                end
                group.initial_lr = group.lr
            end
            self.base_lrs[k] = group.initial_lr
        end
        setup(self, o)
        if not self._schedulers then
            self:_initial_step()
        end
        return self
    end
    M[name] = class
    return class
end

-- ---- LambdaLR ----

--- lr = base * lr_lambda(epoch). lr_lambda: function, or a list of them, one a group.
local LambdaLR = define("LambdaLR", { "lr_lambda" }, { lr_lambda = check.none }, function(self, o)
    local groups = #self.optimizer.param_groups
    local lambdas = o.lr_lambda
    if type(lambdas) == "function" then
        lambdas = {}
        for k = 1, groups do
            lambdas[k] = o.lr_lambda
        end
    elseif type(lambdas) ~= "table" or #lambdas ~= groups then
        check.fail("LambdaLR: expected a function or a list of %d, got %s", groups,
            type(lambdas) == "table" and ("a list of %d"):format(#lambdas) or check.describe(lambdas))
    end
    self.lr_lambdas = lambdas
end)

function LambdaLR:_rates()
    return self:_map(function(base, _, k) return base * self.lr_lambdas[k](self.last_epoch) end)
end
LambdaLR._closed_form = LambdaLR._rates

-- ---- StepLR ----

--- lr * gamma every step_size epochs.
local StepLR = define("StepLR", { "step_size", "gamma" }, { step_size = check.none, gamma = 0.1 }, function(self, o)
    self.step_size = check.integer("StepLR", "step_size", o.step_size, 1)
    self.gamma = check.number("StepLR", "gamma", o.gamma)
end)

function StepLR:_rates()
    if self.last_epoch == 0 or self.last_epoch % self.step_size ~= 0 then
        return self:_unchanged()
    end
    return self:_map(function(_, lr) return lr * self.gamma end)
end

function StepLR:_closed_form()
    return self:_map(function(base) return base * self.gamma ^ math.floor(self.last_epoch / self.step_size) end)
end

-- ---- CosineAnnealingLR ----

--- From the base rate down to eta_min in T_max epochs, along half a cosine. Loshchilov and Hutter 2017, "SGDR".
local CosineAnnealingLR = define("CosineAnnealingLR", { "T_max", "eta_min" }, { T_max = check.none, eta_min = 0 },
    function(self, o)
        self.T_max = check.integer("CosineAnnealingLR", "T_max", o.T_max, 1)
        self.eta_min = check.number("CosineAnnealingLR", "eta_min", o.eta_min)
    end)

function CosineAnnealingLR:_closed_form()
    return self:_map(function(base)
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
    end)
end

function CosineAnnealingLR:_rates()
    local t, T_max, eta_min = self.last_epoch, self.T_max, self.eta_min
    if self._is_initial then
        return self:_unchanged()
    elseif self._step_count == 1 and t > 0 then
        return self:_closed_form()
    elseif (t - 1 - T_max) % (2 * T_max) == 0 then
        -- At the bottom the ratio below is 0 / 0.
        return self:_map(function(base, lr)
            return lr + (base - eta_min) * (1 - math.cos(math.pi / T_max)) / 2
        end)
    end
    local ratio = (1 + math.cos(math.pi * t / T_max)) / (1 + math.cos(math.pi * (t - 1) / T_max))
    return self:_map(function(_, lr) return ratio * (lr - eta_min) + eta_min end)
end

-- ---- LinearLR ----

--- From base * start_factor to base * end_factor in total_iters epochs.
local LinearLR = define("LinearLR", { "start_factor", "end_factor", "total_iters" },
    { start_factor = 1 / 3, end_factor = 1, total_iters = 5 }, function(self, o)
        if type(o.start_factor) ~= "number" or not (o.start_factor > 0 and o.start_factor <= 1) then
            check.fail("LinearLR: start_factor must be in (0, 1], got %s", check.describe(o.start_factor))
        end
        self.start_factor = o.start_factor
        self.end_factor = check.number("LinearLR", "end_factor", o.end_factor, 0, 1)
        self.total_iters = check.integer("LinearLR", "total_iters", o.total_iters, 1)
    end)

function LinearLR:_rates()
    local t, span = self.last_epoch, self.end_factor - self.start_factor
    if t == 0 then
        return self:_map(function(_, lr) return lr * self.start_factor end)
    elseif self._is_initial or t > self.total_iters then
        return self:_unchanged()
    end
    local factor = 1 + span / (self.total_iters * self.start_factor + (t - 1) * span)
    return self:_map(function(_, lr) return lr * factor end)
end

function LinearLR:_closed_form()
    local t = math.min(self.total_iters, self.last_epoch)
    return self:_map(function(base)
        return base * (self.start_factor + (self.end_factor - self.start_factor) * t / self.total_iters)
    end)
end

-- ---- warm-up and cosine ----

--- The schedule of GPT training: from near zero up to the base rate in warmup_iters steps, down to min_lr along half
-- a cosine until lr_decay_iters, min_lr from there on. A closed form of the epoch: not to be chained. (PyTorch has
-- none of this name; it is what nanoGPT's script computes.)
local WarmupCosineLR = define("WarmupCosineLR", { "warmup_iters", "lr_decay_iters", "min_lr" },
    { warmup_iters = 0, lr_decay_iters = check.none, min_lr = 0 }, function(self, o)
        self.warmup_iters = check.integer("WarmupCosineLR", "warmup_iters", o.warmup_iters, 0)
        self.lr_decay_iters = check.integer("WarmupCosineLR", "lr_decay_iters", o.lr_decay_iters, self.warmup_iters)
        self.min_lr = check.number("WarmupCosineLR", "min_lr", o.min_lr, 0)
    end)

function WarmupCosineLR:_closed_form()
    local t, warmup, last, low = self.last_epoch, self.warmup_iters, self.lr_decay_iters, self.min_lr
    return self:_map(function(base)
        if t < warmup then
            return base * (t + 1) / (warmup + 1)
        elseif t > last or last == warmup then
            return t >= last and low or base
        end
        return low + (base - low) * (1 + math.cos(math.pi * (t - warmup) / (last - warmup))) / 2
    end)
end
WarmupCosineLR._rates = WarmupCosineLR._closed_form

-- ---- SequentialLR ----

-- Takes back the step that making a scheduler did.
local function undo(scheduler)
    if scheduler._schedulers then
        for _, inner in ipairs(scheduler._schedulers) do
            undo(inner)
        end
    else
        scheduler.last_epoch = scheduler.last_epoch - 1
    end
end

--- One schedule after the other: schedulers[i + 1] takes over at epoch milestones[i].
local SequentialLR = define("SequentialLR", { "schedulers", "milestones" },
    { schedulers = check.none, milestones = check.none }, function(self, o)
        local schedulers, milestones = o.schedulers, o.milestones
        if type(schedulers) ~= "table" or #schedulers < 1 then
            check.fail("SequentialLR: expected at least one scheduler, got %s", check.describe(schedulers))
        elseif type(milestones) ~= "table" or #milestones ~= #schedulers - 1 then
            check.fail("SequentialLR: expected one milestone less than schedulers, got %d schedulers and %s milestones",
                #schedulers, type(milestones) == "table" and tostring(#milestones) or "no")
        end
        for k, scheduler in ipairs(schedulers) do
            if type(scheduler) ~= "table" or scheduler.optimizer ~= self.optimizer then
                check.fail("SequentialLR: scheduler %d does not belong to this optimizer", k)
            end
        end
        self._schedulers, self._milestones = schedulers, milestones
        self.last_epoch = self.last_epoch + 1
        for _, group in ipairs(self.optimizer.param_groups) do
            group.lr = group.initial_lr
        end
        undo(self)
        local first = schedulers[self:_current(0)]
        first:_initial_step()
        self._last_lr = first:get_last_lr()
    end)

-- Which scheduler rules at an epoch.
function SequentialLR:_current(epoch)
    local k = 1
    while self._milestones[k] and self._milestones[k] <= epoch do
        k = k + 1
    end
    return k
end

function SequentialLR:step()
    self.last_epoch = self.last_epoch + 1
    local k = self:_current(self.last_epoch)
    local scheduler = self._schedulers[k]
    if k > 1 and self._milestones[k - 1] == self.last_epoch then
        scheduler:_update(0)
    else
        scheduler:step()
    end
    self._last_lr = scheduler:get_last_lr()
end

return M
