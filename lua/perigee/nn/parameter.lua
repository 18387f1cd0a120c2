--- Parameters: tensors that a module registers when they are assigned to one of its fields.

local check = require("perigee.check")
local core = require("perigee.ffi")
local pg = require("perigee")

local C = core.C
local M = {}

-- A handle's `reserved` word is Lua's: 1 marks a parameter. The mark belongs to the handle and not to the tensor, as
-- in PyTorch, where Parameter is a class and p.detach() is no parameter.
local PARAMETER = 1

---@param value any
---@return boolean
function M.is_tensor(value)
    return type(value) == "cdata" and pg.is_tensor(value)
end
local is_tensor = M.is_tensor

--- Is the value a parameter (made by nn.Parameter)?
---@param value any
---@return boolean
function M.is_parameter(value)
    return is_tensor(value) and value.reserved == PARAMETER
end

--- Calls fn(...); the tensors that it makes belong to no scope. For what lives longer than the call that makes it.
M.outside_scopes = pg.scope.outside

--- Takes a tensor out of every scope: it is stored somewhere that outlives them.
---@param tensor Tensor
---@return Tensor
function M.keep(tensor)
    C.pg_scope_exempt(tensor)
    return tensor
end

local function make(data, requires_grad)
    local parameter = data:detach()
    parameter:requires_grad_(requires_grad)
    return parameter
end

--- Makes a parameter of a tensor: a leaf over the same memory that requires gradients.
---@param data Tensor floating where it requires gradients
---@param requires_grad boolean? default true
---@return Tensor
function M.Parameter(data, requires_grad)
    if not is_tensor(data) then
        check.fail("Parameter: expected a tensor, got %s", check.describe(data))
    end
    local parameter = M.outside_scopes(make, data, requires_grad ~= false)
    parameter.reserved = PARAMETER
    return parameter
end

--- A parameter of a shape, its elements undefined: what layers fill.
---@param shape integer[]
---@param options table? dtype, device
---@return Tensor
function M.empty(shape, options)
    options = options or {}
    return M.Parameter(M.outside_scopes(pg.empty, shape, {
        dtype = options.dtype or pg.get_default_dtype(), device = options.device,
    }))
end

return M
