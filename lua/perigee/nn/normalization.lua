--- LayerNorm.

local check = require("perigee.check")
local init = require("perigee.nn.initializers")
local F = require("perigee.nn.functional")
local module = require("perigee.nn.module")
local parameter = require("perigee.nn.parameter")

local M = {}

--- (x - mean) / sqrt(var + eps) * weight + bias over the last dimensions. Ba et al. 2016, "Layer Normalization".
---@class LayerNorm: Module
local LayerNorm = module.class("LayerNorm")
M.LayerNorm = LayerNorm

--- normalized_shape: integer or list (the last dimensions), eps: float = 1e-5, elementwise_affine: bool = true,
-- bias: bool = true, *, device, dtype
function LayerNorm:__init(...)
    local o = check.arguments("LayerNorm", { "normalized_shape", "eps", "elementwise_affine", "bias" }, {
        normalized_shape = check.none, eps = 1e-5, elementwise_affine = true, bias = true, device = check.none,
        dtype = check.none,
    }, ...)
    local normalized_shape = o.normalized_shape
    if type(normalized_shape) == "number" then
        normalized_shape = { normalized_shape }
    elseif type(normalized_shape) ~= "table" or #normalized_shape == 0 then
        check.fail("LayerNorm: normalized_shape must be an integer or a list of them, got %s",
            check.describe(normalized_shape))
    end
    local shape = {}
    for i, size in ipairs(normalized_shape) do
        shape[i] = check.integer("LayerNorm", "normalized_shape", size, 0)
    end
    self.normalized_shape = shape
    self.eps = check.number("LayerNorm", "eps", o.eps, 0)
    self.elementwise_affine = o.elementwise_affine
    if o.elementwise_affine then
        self.weight = parameter.empty(shape, o)
        if o.bias then
            self.bias = parameter.empty(shape, o)
        end
    end
    self:reset_parameters()
end

function LayerNorm:reset_parameters()
    if self.weight then
        init.ones_(self.weight)
    end
    if self.bias then
        init.zeros_(self.bias)
    end
end

--- With a residual x + residual is normalised, and given too: one pass over memory for both.
---@param x Tensor (*, normalized_shape)
---@param residual Tensor? of x's shape and dtype
---@return Tensor of x's shape
---@return Tensor? x + residual
function LayerNorm:forward(x, residual)
    if residual then
        return F.add_layer_norm(x, residual, self.normalized_shape, self.weight, self.bias, self.eps)
    end
    return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
end

function LayerNorm:extra_repr()
    local shape = self.normalized_shape
    local text = #shape == 1 and ("(%d,)"):format(shape[1]) or "(" .. table.concat(shape, ", ") .. ")"
    return ("%s, eps=%s, elementwise_affine=%s, bias=%s"):format(text, check.float_repr(self.eps),
        self.elementwise_affine and "True" or "False", self.bias and "True" or "False")
end

return M
