--- nn.utils: clipping gradients, parameters as one vector.

local check = require("perigee.check")
local parameter = require("perigee.nn.parameter")
local pg = require("perigee")

local M = {}

local function gradients(where, parameters)
    if parameter.is_tensor(parameters) then
        parameters = { parameters }
    elseif type(parameters) ~= "table" then
        check.fail("%s: expected a list of tensors, got %s", where, check.describe(parameters))
    end
    local grads = {}
    for i, p in ipairs(parameters) do
        if not parameter.is_tensor(p) then
            check.fail("%s: parameters[%d] must be a tensor, got %s", where, i, check.describe(p))
        end
        local grad = p.grad
        if grad ~= nil then
            grads[#grads + 1] = grad
        end
    end
    return grads
end

--- Scales the gradients, as one vector, down to a norm of at most max_norm; one fused pass.
---@param parameters Tensor[]|Tensor
---@param max_norm number
---@param options table? norm_type (2; a positive order or math.huge), error_if_nonfinite (false)
---@return Tensor the norm before, 0-dim
function M.clip_grad_norm_(parameters, max_norm, options)
    if type(options) == "number" then
        options = { norm_type = options }
    end
    local o = check.options("clip_grad_norm_", options, { norm_type = 2, error_if_nonfinite = false })
    check.number("clip_grad_norm_", "max_norm", max_norm)
    local grads = gradients("clip_grad_norm_", parameters)
    if #grads == 0 then
        return pg.tensor(0)
    end
    return pg._C.clip_grad_norm_(grads, max_norm, o.norm_type, o.error_if_nonfinite)
end

--- Clamps every element of the gradients to [-clip_value, clip_value].
---@param parameters Tensor[]|Tensor
---@param clip_value number
function M.clip_grad_value_(parameters, clip_value)
    check.number("clip_grad_value_", "clip_value", clip_value, 0)
    pg.no_grad(function()
        for _, grad in ipairs(gradients("clip_grad_value_", parameters)) do
            grad:clamp_(-clip_value, clip_value)
        end
    end)
end

--- All parameters, flattened, one behind the other.
---@param parameters Tensor[]
---@return Tensor (total)
function M.parameters_to_vector(parameters)
    local flat = {}
    for i, p in ipairs(parameters) do
        flat[i] = p:flatten()
    end
    return pg.cat(flat)
end

--- The reverse: copies a vector's parts into the parameters.
---@param vector Tensor (total)
---@param parameters Tensor[]
function M.vector_to_parameters(vector, parameters)
    local total = 0
    for _, p in ipairs(parameters) do
        total = total + p:numel()
    end
    if vector:numel() ~= total then
        check.fail("vector_to_parameters: the vector has %d elements, the parameters %d", vector:numel(), total)
    end
    pg.no_grad(function()
        local at = 0
        for _, p in ipairs(parameters) do
            local n = p:numel()
            p:copy_(vector:narrow(0, at, n):view(p.shape))
            at = at + n
        end
    end)
end

return M
