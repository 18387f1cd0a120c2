--- gradcheck and gradgradcheck: gradients against finite differences, in double.

local ffi = require "ffi"
local autograd = require "perigee.autograd"
local construct = require "perigee.construct"
local dtype = require "perigee.dtype"
local errors = require "perigee.errors"
local tensor = require "perigee.tensor"
local wrapper = require "perigee.wrapper"

local gradcheck = {}

local double = dtype.by_name.float64
local known = { eps = true, atol = true, rtol = true, raise = true, grad_outputs = true }

local function values_of(t)
    local n = t:numel()
    local list = {}
    construct.each(t, 0, n, function(k, v) list[k + 1] = v end)
    return list, n
end

local function from_list(list, n, shape, requires_grad)
    local memory = ffi.new("double[?]", n + 1)
    for k = 1, n do memory[k - 1] = list[k] end
    return construct.from_memory(memory, shape, double, { requires_grad = requires_grad })
end

local function outputs_of(where, f, inputs)
    local results = { f(unpack(inputs, 1, #inputs)) }
    local list = {}
    for k, v in ipairs(results) do
        if tensor.is_tensor(v) then
            list[#list + 1] = v
        elseif type(v) == "table" then
            for _, item in ipairs(v) do list[#list + 1] = item end
        else
            errors.fail("%s: result %d is no Tensor", where, k)
        end
    end
    if #list == 0 then errors.fail("%s: the function gave no Tensor", where) end
    return list
end

local function check_arguments(where, f, inputs, options)
    if type(f) ~= "function" and not (type(f) == "table" and getmetatable(f) and getmetatable(f).__call) then
        errors.fail("%s: expected a function, got %s", where, wrapper.describe(f))
    end
    if tensor.is_tensor(inputs) then inputs = { inputs } end
    if type(inputs) ~= "table" or #inputs == 0 then
        errors.fail("%s: expected a list of Tensors, got %s", where, wrapper.describe(inputs))
    end
    local any = false
    for k, v in ipairs(inputs) do
        if not tensor.is_tensor(v) then
            errors.fail("%s: expected Tensors, got %s at [%d]", where, wrapper.describe(v), k)
        end
        if v.requires_grad then
            any = true
            if v.dtype ~= double then
                errors.fail("%s: input %d is %s: finite differences need pg.float64", where, k, tostring(v.dtype))
            end
        end
    end
    if not any then errors.fail("%s: no input requires a gradient", where) end
    options = options or {}
    wrapper.check_options(options, known, where)
    return inputs, options
end

--- Compares the gradients of f with central differences: every element of every output by every element of every
--- input that requires a gradient.
---@param f fun(...: Tensor): Tensor, ...
---@param inputs Tensor|Tensor[] float64 where they require gradients
---@param options table? eps = 1e-6, atol = 1e-5, rtol = 1e-3, raise = true (false: a mismatch gives false, the message)
---@return boolean, string?
function gradcheck.gradcheck(f, inputs, options)
    inputs, options = check_arguments("gradcheck", f, inputs, options)
    local eps, atol, rtol = options.eps or 1e-6, options.atol or 1e-5, options.rtol or 1e-3
    local function mismatch(format, ...)
        local message = "gradcheck: " .. format:format(...)
        if options.raise == false then return false, message end
        return errors.raise(message)
    end
    local outputs = outputs_of("gradcheck", f, inputs)

    -- analytic[i][o]: rows of output elements, columns of input elements.
    local active = {}
    for i, v in ipairs(inputs) do
        if v.requires_grad then active[#active + 1] = i end
    end
    local wanted = {}
    for k, i in ipairs(active) do wanted[k] = inputs[i] end
    local analytic = {}
    for _, i in ipairs(active) do analytic[i] = {} end
    for o, output in ipairs(outputs) do
        local shape, n = output.shape, output:numel()
        for _, i in ipairs(active) do analytic[i][o] = {} end
        if output.requires_grad then
            if output.dtype ~= double then
                return mismatch("output %d is %s, not pg.float64", o, tostring(output.dtype))
            end
            local unit = {}
            for j = 1, n do unit[j] = 0 end
            for j = 1, n do
                unit[j] = 1
                local seed = from_list(unit, n, shape)
                unit[j] = 0
                local grads = { autograd.grad(output, wanted, {
                    grad_outputs = seed, retain_graph = true, allow_unused = true,
                }) }
                for k, i in ipairs(active) do
                    local grad = grads[k]
                    if grad ~= nil then
                        if grad.shape ~= inputs[i].shape then
                            return mismatch("the gradient of input %d has shape %s, the input %s", i,
                                tostring(grad.shape), tostring(inputs[i].shape))
                        end
                        if grad.dtype ~= double then
                            return mismatch("the gradient of input %d is %s", i, tostring(grad.dtype))
                        end
                        analytic[i][o][j] = values_of(grad)
                    end
                end
            end
        end
    end

    for _, i in ipairs(active) do
        local list, n = values_of(inputs[i])
        local shape = inputs[i].shape
        local arguments = {}
        for k, v in ipairs(inputs) do arguments[k] = v end
        local function at(k, delta)
            local old = list[k]
            list[k] = old + delta
            arguments[i] = from_list(list, n, shape, true)
            list[k] = old
            local result = {}
            for o, output in ipairs(outputs_of("gradcheck", f, arguments)) do
                if outputs[o].requires_grad then result[o] = values_of(output:detach()) end
            end
            return result
        end
        for k = 1, n do
            local above, below = at(k, eps), at(k, -eps)
            for o, output in ipairs(outputs) do
                if output.requires_grad then
                    for j = 1, output:numel() do
                        local numeric = (above[o][j] - below[o][j]) / (2 * eps)
                        local row = analytic[i][o][j]
                        local mine = row and row[k] or 0
                        local close = math.abs(mine - numeric) <= atol + rtol * math.abs(numeric) -- false for NaNs
                        if not close then
                            return mismatch("input %d element %d, output %d element %d: the gradient is %.10g, "
                                .. "differences give %.10g", i, k - 1, o, j - 1, mine, numeric)
                        end
                    end
                end
            end
        end
    end
    return true
end

-- A fixed stream of numbers in [0.5, 1.5): no seed of the user's is touched.
local function stream()
    local state = 12345
    return function()
        state = (state * 1103515245 + 12345) % 2147483648
        return 0.5 + state / 2147483648
    end
end

--- Checks the gradients of f's gradients, with random gradients of the outputs.
---@param f fun(...: Tensor): Tensor, ...
---@param inputs Tensor|Tensor[]
---@param options table? as gradcheck's, and grad_outputs
---@return boolean, string?
function gradcheck.gradgradcheck(f, inputs, options)
    inputs, options = check_arguments("gradgradcheck", f, inputs, options)
    local outputs = outputs_of("gradgradcheck", f, inputs)
    local random = stream()
    local all, differentiable = {}, {}
    for k, v in ipairs(inputs) do all[k] = v end
    for o, output in ipairs(outputs) do
        if output.requires_grad then
            differentiable[#differentiable + 1] = o
            local given = options.grad_outputs and options.grad_outputs[o]
            if not given then
                local list, n = {}, output:numel()
                for j = 1, n do list[j] = random() end
                given = from_list(list, n, output.shape, true)
            end
            all[#all + 1] = given
        end
    end
    local active = {}
    for i, v in ipairs(inputs) do
        if v.requires_grad then active[#active + 1] = i end
    end
    local function gradients(...)
        local arguments = { ... }
        local results = outputs_of("gradgradcheck", f, { unpack(arguments, 1, #inputs) })
        local chosen, seeds, wanted = {}, {}, {}
        for k, o in ipairs(differentiable) do
            chosen[k], seeds[k] = results[o], arguments[#inputs + k]
        end
        for k, i in ipairs(active) do wanted[k] = arguments[i] end
        local grads = { autograd.grad(chosen, wanted, {
            grad_outputs = seeds, create_graph = true, allow_unused = true,
        }) }
        local list = {}
        for k = 1, #wanted do
            if grads[k] ~= nil then list[#list + 1] = grads[k] end
        end
        return unpack(list)
    end
    -- Where nothing reaches the inputs there is no gradient to check.
    if select("#", gradients(unpack(all))) == 0 then return true end
    local rest = {}
    for key, value in pairs(options) do
        if key ~= "grad_outputs" then rest[key] = value end
    end
    return gradcheck.gradcheck(gradients, all, rest)
end

return gradcheck
