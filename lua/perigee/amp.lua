--- Mixed precision: autocast regions and gradient scaling. PyTorch's torch.amp.
--
-- Which ops convert what stands in the op table (autocast low, f32, promote).

local check = require "perigee.check"
local core = require "perigee.ffi"
local dtype = require "perigee.dtype"
local memory = require "perigee.memory"
local parameter = require "perigee.nn.parameter"

local C = core.C
local fail, describe = check.fail, check.describe

local amp = {}

-- ---- autocast ----

local token = core.shared_buffer("int[1]")
local AUTOCAST = { dtype = check.none, enabled = true, cache_enabled = true }

local function callable(f)
    return type(f) == "function" or (type(f) == "table" and getmetatable(f) and getmetatable(f).__call ~= nil)
end

local function enter(device_type, options)
    if type(device_type) ~= "string" then
        fail("autocast: expected a device type, 'cpu' or 'cuda', got %s", describe(device_type))
    end
    options = check.options("autocast", options or {}, AUTOCAST)
    if options.dtype ~= nil and not dtype.is(options.dtype) then
        fail("autocast: expected a dtype such as pg.bfloat16, got %s", describe(options.dtype))
    end
    for _, key in ipairs { "enabled", "cache_enabled" } do
        if type(options[key]) ~= "boolean" then
            fail("autocast: expected a boolean for %s, got %s", key, describe(options[key]))
        end
    end
    memory.check(C.pg_autocast_enter(token, device_type:match("^(%a+):%d+$") or device_type,
        options.dtype and options.dtype.number or -1, options.enabled and 1 or 0, options.cache_enabled and 1 or 0))
    return token[0]
end

local function leave(mode, ok, ...)
    local s = C.pg_autocast_leave(mode)
    if not ok then error((...), 0) end
    if s ~= 0 then memory.check(s) end
    return ...
end

--- pg.autocast(device_type, options, f, ...) calls f(...) with ops converting their arguments as PyTorch's autocast
--- does, and gives back what it returns. options (may be left out): dtype (cuda: float16, cpu: bfloat16), enabled,
--- cache_enabled.
--- Without a closure: local mode = pg.autocast.enter(device_type, options) ... pg.autocast.leave(mode).
amp.autocast = setmetatable({
    doc = "a region of mixed precision",
    enter = enter,
    leave = function(mode)
        if type(mode) ~= "number" then fail("autocast.leave: expected the token, got %s", describe(mode)) end
        memory.check(C.pg_autocast_leave(mode))
    end,
}, {
    __call = function(_, device_type, options, f, ...)
        if callable(options) then return amp.autocast(device_type, {}, options, f, ...) end
        if options ~= nil and type(options) ~= "table" then
            fail("autocast: expected a table of options or a function, got %s", describe(options))
        end
        if not callable(f) then fail("autocast: expected a function, got %s", describe(f)) end
        return leave(enter(device_type, options), pcall(f, ...))
    end,
})

---@param device_type string? default "cuda"
---@return boolean
function amp.is_autocast_enabled(device_type)
    local answer = C.pg_is_autocast_enabled(device_type or "cuda")
    if answer < 0 then memory.check(answer) end
    return answer == 1
end

--- What products are computed in on the device type, inside a region for it.
---@param device_type string
---@return DType
function amp.get_autocast_dtype(device_type)
    local answer = C.pg_get_autocast_dtype(device_type)
    if answer < 0 then memory.check(answer) end
    return dtype.list[answer]
end

function amp.is_autocast_cache_enabled()
    return C.pg_is_autocast_cache_enabled() ~= 0
end

-- ---- precision of float32 products ----

local LEVELS = { highest = 0, high = 1, medium = 2 }
local NAMES = { [0] = "highest", "high", "medium" }

--- "highest": float32 throughout (the default). "high", "medium": CUDA devices may round factors to TF32. The CPU's
--- products are exact at every level.
---@param precision string
function amp.set_float32_matmul_precision(precision)
    if not LEVELS[precision] then
        fail("set_float32_matmul_precision: expected 'highest', 'high' or 'medium', got %s", describe(precision))
    end
    memory.check(C.pg_set_float32_matmul_precision(LEVELS[precision]))
end

function amp.get_float32_matmul_precision()
    return NAMES[C.pg_get_float32_matmul_precision()]
end

-- ---- GradScaler ----

local READY, UNSCALED, STEPPED = "ready", "unscaled", "stepped"

--- Scales the loss so that small gradients survive float16, skips steps whose gradients are not finite, and looks for
--- the largest scale that works. Nothing waits for the device but step. PyTorch's torch.amp.GradScaler.
---@class GradScaler
local GradScaler = {}
GradScaler.__index = GradScaler
amp.GradScaler = GradScaler

local POSITIONS = { "device", "init_scale", "growth_factor", "backoff_factor", "growth_interval", "enabled" }
local DEFAULTS = {
    device = "cuda", init_scale = 65536, growth_factor = 2, backoff_factor = 0.5, growth_interval = 2000,
    enabled = true,
}

local function number(name, value, good, wanted)
    if type(value) ~= "number" or not good(value) then
        fail("GradScaler: %s must be %s, got %s", name, wanted, describe(value))
    end
    return value
end
local function above_one(x) return x > 1 end
local function below_one(x) return x < 1 end
local function positive(x) return x > 0 and x < math.huge end
local function count(x) return x >= 1 and x % 1 == 0 end

setmetatable(GradScaler, {
    __call = function(_, ...)
        local o = check.arguments("GradScaler", POSITIONS, DEFAULTS, ...)
        if type(o.device) ~= "string" then
            fail("GradScaler: device must be a device's name, got %s", describe(o.device))
        end
        if type(o.enabled) ~= "boolean" then
            fail("GradScaler: enabled must be a boolean, got %s", describe(o.enabled))
        end
        return setmetatable({
            _device = o.device, _enabled = o.enabled, _optimizers = {},
            _init_scale = number("init_scale", o.init_scale, positive, "positive"),
            _growth_factor = number("growth_factor", o.growth_factor, above_one, "above 1"),
            _backoff_factor = number("backoff_factor", o.backoff_factor, below_one, "below 1"),
            _growth_interval = number("growth_interval", o.growth_interval, count, "a positive integer"),
            _init_growth_tracker = 0,
        }, GradScaler)
    end,
})

-- scale and growth tracker: one float32, one int32 on a device; made when first needed, outside all scopes.
local function state(self, device)
    if not self._scale then
        local pg = require "perigee"
        self._scale = parameter.keep(pg.full({}, self._init_scale, { dtype = pg.float32, device = device }))
        self._tracker = parameter.keep(pg.full({}, self._init_growth_tracker, { dtype = pg.int32, device = device }))
    end
    return self._scale
end

local function record_of(self, optimizer)
    local record = self._optimizers[optimizer]
    if not record then
        record = { stage = READY, found = {} }
        self._optimizers[optimizer] = record
    end
    return record
end

--- outputs (a tensor or tables of them) times the scale.
---@param outputs Tensor|table
function GradScaler:scale(outputs)
    if not self._enabled then return outputs end
    if parameter.is_tensor(outputs) then
        return outputs * state(self, outputs.device):to(outputs.device)
    end
    if type(outputs) ~= "table" then
        fail("scale: expected a tensor or a table of tensors, got %s", describe(outputs))
    end
    local result = {}
    for key, value in pairs(outputs) do result[key] = self:scale(value) end
    return result
end

local function unscale(self, optimizer, record)
    local pg = require "perigee"
    local by_device = {}
    for _, group in ipairs(optimizer.param_groups) do
        for _, p in ipairs(group.params) do
            local grad = p.grad
            if grad ~= nil then
                if grad.dtype == pg.float16 then
                    fail("unscale_: attempting to unscale float16 gradients: keep parameters in float32")
                end
                local list = by_device[grad.device] or {}
                by_device[grad.device] = list
                list[#list + 1] = grad
            end
        end
    end
    pg.no_grad(function()
        for device, grads in pairs(by_device) do
            -- float64's reciprocal rounded: exact for powers of two, best for others
            local inverse = state(self, device):to(pg.float64):reciprocal():to(pg.float32):to(device)
            local found = parameter.keep(pg.zeros({}, { dtype = pg.float32, device = device }))
            pg._C.unscale_(found, grads, inverse)
            record.found[device] = found
        end
    end)
end

--- Divides the gradients of the optimizer's parameters by the scale; step does it otherwise: call it to clip.
function GradScaler:unscale_(optimizer)
    if not self._enabled then return end
    local record = record_of(self, optimizer)
    if record.stage == UNSCALED then fail("unscale_: already called on this optimizer since the last update()") end
    if record.stage == STEPPED then fail("unscale_: called after step()") end
    unscale(self, optimizer, record)
    record.stage = UNSCALED
end

--- optimizer:step(...), unless its gradients hold inf or nan.
---@return any what the optimizer's step returned, nil where it was skipped
function GradScaler:step(optimizer, ...)
    if not self._enabled then return optimizer:step(...) end
    if select("#", ...) > 0 and type((...)) == "function" then
        fail("step: a closure cannot be used while the GradScaler is enabled")
    end
    local record = record_of(self, optimizer)
    if record.stage == STEPPED then fail("step: already called since the last update()") end
    if record.stage == READY then self:unscale_(optimizer) end
    if next(record.found) == nil then
        fail("step: the optimizer has no gradients: no inf checks were recorded for it")
    end
    record.stage = STEPPED
    for _, found in pairs(record.found) do
        if found:item() ~= 0 then return nil end
    end
    return optimizer:step(...)
end

--- Sets the scale for the next iteration: to new_scale (a number or a tensor of one), or smaller where a gradient was
--- not finite, or larger after growth_interval good steps.
---@param new_scale number|Tensor|nil
function GradScaler:update(new_scale)
    if not self._enabled then return end
    local pg = require "perigee"
    if not self._scale then fail("update: the scale does not exist yet: call scale() first") end
    pg.no_grad(function()
        local scale, tracker = self._scale, self._tracker
        if new_scale ~= nil then
            if parameter.is_tensor(new_scale) then
                if new_scale:numel() ~= 1 or new_scale.requires_grad then
                    fail("update: new_scale must be one number without gradient, got %s", describe(new_scale))
                end
                scale:copy_(new_scale:reshape({}))
            else
                scale:fill_(number("new_scale", new_scale, positive, "positive"))
            end
            return
        end
        local bad
        for _, record in pairs(self._optimizers) do
            for _, found in pairs(record.found) do
                local here = found:to(scale.device):gt(0)
                bad = bad == nil and here or bad:logical_or(here)
            end
        end
        if bad == nil then fail("update: no inf checks were recorded: call step() or unscale_() first") end
        local steps = tracker + 1
        local grows = steps:eq(self._growth_interval)
        local larger = scale * self._growth_factor
        larger = pg.where(larger:isfinite(), larger, scale)
        tracker:copy_(pg.where(bad:logical_or(grows), 0, steps))
        scale:copy_(pg.where(bad, scale * self._backoff_factor, pg.where(grows, larger, scale)))
    end)
    self._optimizers = {}
end

--- The scale as a number; waits for the device.
function GradScaler:get_scale()
    if not self._enabled then return 1 end
    return self._scale and self._scale:item() or self._init_scale
end

function GradScaler:is_enabled() return self._enabled end
function GradScaler:get_growth_factor() return self._growth_factor end
function GradScaler:get_backoff_factor() return self._backoff_factor end
function GradScaler:get_growth_interval() return self._growth_interval end
function GradScaler:set_growth_factor(x) self._growth_factor = number("growth_factor", x, above_one, "above 1") end
function GradScaler:set_backoff_factor(x) self._backoff_factor = number("backoff_factor", x, below_one, "below 1") end
function GradScaler:set_growth_interval(x)
    self._growth_interval = number("growth_interval", x, count, "a positive integer")
end

--- By device, 0-dim float32: 1 where a gradient of the optimizer was not finite when it was unscaled.
function GradScaler:_found_inf_per_device(optimizer)
    return record_of(self, optimizer).found
end

--- Empty where the scaler is not enabled; waits for the device.
function GradScaler:state_dict()
    if not self._enabled then return {} end
    return {
        scale = self:get_scale(), growth_factor = self._growth_factor, backoff_factor = self._backoff_factor,
        growth_interval = self._growth_interval,
        _growth_tracker = self._tracker and self._tracker:item() or self._init_growth_tracker,
    }
end

function GradScaler:load_state_dict(dict)
    if not self._enabled then return end
    if type(dict) ~= "table" or next(dict) == nil then
        fail("load_state_dict: the state is empty: it may have been saved from a GradScaler that was not enabled")
    end
    for _, key in ipairs { "scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker" } do
        if type(dict[key]) ~= "number" then
            fail("load_state_dict: expected a number for %s, got %s", key, describe(dict[key]))
        end
    end
    self._init_scale = number("scale", dict.scale, positive, "positive")
    self:set_growth_factor(dict.growth_factor)
    self:set_backoff_factor(dict.backoff_factor)
    self:set_growth_interval(dict.growth_interval)
    self._init_growth_tracker = dict._growth_tracker
    if self._scale then
        self._scale:fill_(dict.scale)
        self._tracker:fill_(dict._growth_tracker)
    end
end

return amp
