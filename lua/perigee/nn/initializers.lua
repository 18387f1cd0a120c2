--- nn.init: fills tensors in place, without gradient, and gives them back. Names, formulas and the order of the
-- random draws are PyTorch's torch.nn.init.

local check = require("perigee.check")
local parameter = require("perigee.nn.parameter")
local pg = require("perigee")

local M = {}

local function filled(where, tensor, fn, ...)
    if not parameter.is_tensor(tensor) then
        check.fail("init.%s: expected a tensor, got %s", where, check.describe(tensor))
    end
    pg.no_grad(fn, tensor, ...)
    return tensor
end

local function uniform(tensor, a, b)
    tensor:uniform_(a, b)
end

local function normal(tensor, mean, std)
    tensor:normal_(mean, std)
end

local function fill(tensor, value)
    tensor:fill_(value)
end

--- Uniform in [a, b). Defaults 0 and 1.
---@param tensor Tensor
function M.uniform_(tensor, a, b)
    return filled("uniform_", tensor, uniform, a or 0, b or 1)
end

--- Normal. Defaults: mean 0, std 1.
---@param tensor Tensor
function M.normal_(tensor, mean, std)
    return filled("normal_", tensor, normal, mean or 0, std or 1)
end

---@param tensor Tensor
function M.constant_(tensor, value)
    return filled("constant_", tensor, fill, value)
end

---@param tensor Tensor
function M.zeros_(tensor)
    return filled("zeros_", tensor, fill, 0)
end

---@param tensor Tensor
function M.ones_(tensor)
    return filled("ones_", tensor, fill, 1)
end

-- The normal distribution's cumulative function, by Abramowitz and Stegun 7.1.26: it only chooses how to sample.
local function normal_cdf(x)
    local z = math.abs(x) / math.sqrt(2)
    local t = 1 / (1 + 0.3275911 * z)
    local erf = 1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
        * math.exp(-z * z)
    return x < 0 and (1 - erf) / 2 or (1 + erf) / 2
end

-- Draws anew what lies outside, until nothing does.
local function reject_normal(tensor, mean, std, a, b)
    tensor:normal_(mean, std)
    while true do
        local outside = tensor:lt(a):logical_or(tensor:gt(b))
        if not outside:any():item() then
            return
        end
        tensor:copy_(pg.where(outside, pg.empty_like(tensor):normal_(mean, std), tensor))
    end
end

-- Far from the mean few normal draws would be kept: uniform draws, each kept with the probability of its height.
local function reject_uniform(tensor, mean, std, a, b)
    local mode = math.max(a, math.min(mean, b))
    local peak = -0.5 * ((mode - mean) / std) ^ 2
    local pending
    while true do
        local candidates = pg.empty_like(tensor):uniform_(a, b)
        local height = candidates:sub(mean):div(std):square():mul(-0.5):sub(peak)
        local refused = pg.empty_like(tensor):uniform_(0, 1):log():gt(height)
        if pending then
            tensor:copy_(pg.where(pending, candidates, tensor))
            pending = pending:logical_and(refused)
        else
            tensor:copy_(candidates)
            pending = refused
        end
        if not pending:any():item() then
            return
        end
    end
end

--- Normal, drawn again where outside [a, b]. Defaults: mean 0, std 1, a -2, b 2 (values, not multiples of std).
---@param tensor Tensor
function M.trunc_normal_(tensor, mean, std, a, b)
    mean, std, a, b = mean or 0, std or 1, a or -2, b or 2
    if a >= b or std <= 0 then
        check.fail("init.trunc_normal_: expected a < b and std > 0, got a %s, b %s, std %s", tostring(a), tostring(b),
            tostring(std))
    end
    local inside = normal_cdf((b - mean) / std) - normal_cdf((a - mean) / std)
    return filled("trunc_normal_", tensor, inside > 0.3 and reject_normal or reject_uniform, mean, std, a, b)
end

--- The gain that a nonlinearity asks for: linear, sigmoid 1; tanh 5/3; relu sqrt 2; leaky_relu by its slope; selu
-- 3/4.
---@param nonlinearity string
---@param param number? leaky_relu's slope, default 0.01
---@return number
function M.calculate_gain(nonlinearity, param)
    if nonlinearity == "linear" or nonlinearity == "sigmoid" or nonlinearity == "identity"
        or tostring(nonlinearity):match("^conv%d?d?") or tostring(nonlinearity):match("^conv_transpose%dd$") then
        return 1
    elseif nonlinearity == "tanh" then
        return 5 / 3
    elseif nonlinearity == "relu" then
        return math.sqrt(2)
    elseif nonlinearity == "leaky_relu" then
        local slope = check.number("init.calculate_gain", "param", param or 0.01)
        return math.sqrt(2 / (1 + slope ^ 2))
    elseif nonlinearity == "selu" then
        return 3 / 4
    end
    check.fail("init.calculate_gain: unsupported nonlinearity %s; known: linear, conv*, sigmoid, tanh, relu, "
        .. "leaky_relu, selu", check.describe(nonlinearity))
end

--- Inputs and outputs of a weight: (out, in, ...), what follows being a receptive field.
---@param tensor Tensor at least 2 dimensions
---@return number fan_in
---@return number fan_out
function M.fans(tensor)
    local shape = tensor.shape
    if #shape < 2 then
        check.fail("fan in and fan out can not be computed for a tensor with fewer than 2 dimensions, got [%s]",
            table.concat(shape, ", "))
    end
    local field = 1
    for i = 3, #shape do
        field = field * shape[i]
    end
    return shape[2] * field, shape[1] * field
end

--- Glorot and Bengio 2010: uniform in +-gain * sqrt(6 / (fan_in + fan_out)).
---@param tensor Tensor
---@param gain number? default 1
function M.xavier_uniform_(tensor, gain)
    local fan_in, fan_out = M.fans(tensor)
    local bound = (gain or 1) * math.sqrt(2 / (fan_in + fan_out)) * math.sqrt(3)
    return filled("xavier_uniform_", tensor, uniform, -bound, bound)
end

--- Glorot and Bengio 2010: normal with std gain * sqrt(2 / (fan_in + fan_out)).
function M.xavier_normal_(tensor, gain)
    local fan_in, fan_out = M.fans(tensor)
    return filled("xavier_normal_", tensor, normal, 0, (gain or 1) * math.sqrt(2 / (fan_in + fan_out)))
end

local function kaiming_std(where, tensor, options)
    local o = check.options("init." .. where, options, { a = 0, mode = "fan_in", nonlinearity = "leaky_relu" })
    local fan_in, fan_out = M.fans(tensor)
    if o.mode ~= "fan_in" and o.mode ~= "fan_out" then
        check.fail("init.%s: mode must be fan_in or fan_out, got %s", where, check.describe(o.mode))
    end
    return M.calculate_gain(o.nonlinearity, o.a) / math.sqrt(o.mode == "fan_in" and fan_in or fan_out)
end

--- He et al. 2015: uniform in +-gain * sqrt(3 / fan).
---@param tensor Tensor
---@param options table? a (leaky_relu's slope, 0), mode ("fan_in"), nonlinearity ("leaky_relu")
function M.kaiming_uniform_(tensor, options)
    local bound = math.sqrt(3) * kaiming_std("kaiming_uniform_", tensor, options)
    return filled("kaiming_uniform_", tensor, uniform, -bound, bound)
end

--- He et al. 2015: normal with std gain / sqrt(fan).
---@param tensor Tensor
---@param options table? as kaiming_uniform_'s
function M.kaiming_normal_(tensor, options)
    return filled("kaiming_normal_", tensor, normal, 0, kaiming_std("kaiming_normal_", tensor, options))
end

return M
