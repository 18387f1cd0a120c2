--- Losses as modules: CrossEntropyLoss, LinearCrossEntropyLoss, NLLLoss, MSELoss, L1Loss, BCEWithLogitsLoss.

local check = require("perigee.check")
local F = require("perigee.nn.functional")
local linear = require("perigee.nn.linear")
local module = require("perigee.nn.module")

local M = {}

local function check_reduction(name, reduction)
    if reduction ~= "mean" and reduction ~= "sum" and reduction ~= "none" then
        check.fail("%s: reduction must be none, mean or sum, got %s", name, check.describe(reduction))
    end
    return reduction
end

-- A loss: its options, those that are tensors (buffers of the module), and the function of nn.functional.
local function loss(name, fn, defaults, tensors)
    local class = module.class(name)
    defaults.reduction = "mean"
    local arguments = {}
    for key in pairs(defaults) do
        arguments[#arguments + 1] = key
    end
    function class:__init(...)
        local o = check.arguments(name, tensors, defaults, ...)
        check_reduction(name, o.reduction)
        for _, key in ipairs(tensors) do
            self:register_buffer(key, o[key])
            o[key] = nil
        end
        for key, value in pairs(o) do
            self[key] = value
        end
    end
    function class:forward(input, target)
        local options = {}
        for _, key in ipairs(arguments) do
            options[key] = self[key]
        end
        return fn(input, target, options)
    end
    M[name] = class
end

--- Softmax and negative log likelihood. input (N, C) or (N, C, d1, ...), target class ids (N) or (N, d1, ...), or
-- probabilities of input's shape. Options: weight (C), ignore_index (-100), label_smoothing (0), reduction.
loss("CrossEntropyLoss", function(input, target, o) return F.cross_entropy(input, target, o) end,
    { weight = check.none, ignore_index = -100, label_smoothing = 0 }, { "weight" })

--- A linear layer, `linear`, and the cross entropy of what it gives, as one op that keeps no logits apart from their
-- gradient (F.linear_cross_entropy). input (N, in_features) or (in_features), target class ids (N) or probabilities
-- (N, num_classes). PyTorch's module without `options`, which cut the batch.
---@class LinearCrossEntropyLoss: Module
local LinearCrossEntropyLoss = module.class("LinearCrossEntropyLoss")
M.LinearCrossEntropyLoss = LinearCrossEntropyLoss

--- in_features: integer, num_classes: integer, *, out_features: integer[] = {} (dimensions d1, ... of a loss of many:
-- target (N, d1, ...)), bias: bool = false, reduction, weight (num_classes), ignore_index (-100, of class ids alone),
-- label_smoothing, device, dtype
function LinearCrossEntropyLoss:__init(...)
    local name = "LinearCrossEntropyLoss"
    local o = check.arguments(name, { "in_features", "num_classes" }, {
        in_features = check.none, num_classes = check.none, out_features = {}, bias = false, reduction = "mean",
        weight = check.none, ignore_index = check.none, label_smoothing = 0, device = check.none, dtype = check.none,
    }, ...)
    self.num_classes = check.integer(name, "num_classes", o.num_classes, 1)
    self.reduction = check_reduction(name, o.reduction)
    self.label_smoothing = check.number(name, "label_smoothing", o.label_smoothing, 0, 1)
    self.ignore_index = o.ignore_index
    if type(o.out_features) ~= "table" then
        check.fail("%s: out_features must be a list of integers, got %s", name, check.describe(o.out_features))
    end
    local outputs = o.num_classes
    self.out_features = {}
    for k, size in ipairs(o.out_features) do
        self.out_features[k] = check.integer(name, "out_features", size, 1)
        outputs = outputs * size
    end
    if o.weight and (o.weight:dim() ~= 1 or o.weight:size(0) ~= o.num_classes) then
        check.fail("%s: expected weight of shape [%d], got %s", name, o.num_classes, check.describe(o.weight))
    end
    self:register_buffer("weight", o.weight)
    self.linear = linear.Linear(o.in_features, outputs, { bias = o.bias, device = o.device, dtype = o.dtype })
end

function LinearCrossEntropyLoss:forward(input, target)
    local weight, bias = self.linear.weight, self.linear.bias
    if #self.out_features > 0 then
        local shape = { self.num_classes, unpack(self.out_features) }
        bias = bias and bias:reshape(shape)
        shape[#shape + 1] = self.linear.in_features
        weight = weight:reshape(shape)
    end
    return F.linear_cross_entropy(input, weight, target, {
        linear_bias = bias, weight = self.weight, reduction = self.reduction, ignore_index = self.ignore_index,
        label_smoothing = self.label_smoothing,
    })
end

function LinearCrossEntropyLoss:extra_repr()
    local sizes = table.concat(self.out_features, ", ")
    return ("in_features=%d, num_classes=%d, out_features=(%s), bias=%s, reduction=%s, ignore_index=%s, "
        .. "label_smoothing=%s, options=None"):format(self.linear.in_features, self.num_classes,
        #self.out_features == 1 and sizes .. "," or sizes, self.linear.bias and "True" or "False", self.reduction,
        self.ignore_index and tostring(self.ignore_index) or "None", check.float_repr(self.label_smoothing))
end

--- Negative log likelihood of log-probabilities. Options: weight, ignore_index, reduction.
loss("NLLLoss", function(input, target, o) return F.nll_loss(input, target, o) end,
    { weight = check.none, ignore_index = -100 }, { "weight" })

loss("MSELoss", function(input, target, o) return F.mse_loss(input, target, o) end, {}, {})

loss("L1Loss", function(input, target, o) return F.l1_loss(input, target, o) end, {}, {})

--- Options: weight, pos_weight, reduction.
loss("BCEWithLogitsLoss", function(input, target, o) return F.binary_cross_entropy_with_logits(input, target, o) end,
    { weight = check.none, pos_weight = check.none }, { "weight", "pos_weight" })

return M
