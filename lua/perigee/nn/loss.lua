--- Losses as modules: CrossEntropyLoss, NLLLoss, MSELoss, L1Loss, BCEWithLogitsLoss.

local check = require("perigee.check")
local F = require("perigee.nn.functional")
local module = require("perigee.nn.module")

local M = {}

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
        if o.reduction ~= "mean" and o.reduction ~= "sum" and o.reduction ~= "none" then
            check.fail("%s: reduction must be none, mean or sum, got %s", name, check.describe(o.reduction))
        end
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

--- Negative log likelihood of log-probabilities. Options: weight, ignore_index, reduction.
loss("NLLLoss", function(input, target, o) return F.nll_loss(input, target, o) end,
    { weight = check.none, ignore_index = -100 }, { "weight" })

loss("MSELoss", function(input, target, o) return F.mse_loss(input, target, o) end, {}, {})

loss("L1Loss", function(input, target, o) return F.l1_loss(input, target, o) end, {}, {})

--- Options: weight, pos_weight, reduction.
loss("BCEWithLogitsLoss", function(input, target, o) return F.binary_cross_entropy_with_logits(input, target, o) end,
    { weight = check.none, pos_weight = check.none }, { "weight", "pos_weight" })

return M
