--- SGD with momentum. PyTorch's torch.optim.SGD:
--   g = grad + weight_decay * p;  b = momentum * b + (1 - dampening) * g (b = g at first);
--   p = p - lr * b, or p - lr * (g + momentum * b) with nesterov (Sutskever et al. 2013).

local check = require("perigee.check")
local Optimizer = require("perigee.optim.optimizer")
local pg = require("perigee")

local SGD = Optimizer.class("SGD", { "lr", "momentum", "dampening", "weight_decay", "nesterov" }, {
    lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false, maximize = false,
})

function SGD:_check(o)
    for _, option in ipairs { "lr", "momentum", "weight_decay" } do
        Optimizer._check_rate(self._name, option, o[option], 0)
    end
    check.number(self._name, "dampening", o.dampening)
    if o.nesterov and (o.momentum <= 0 or o.dampening ~= 0) then
        check.fail("SGD: Nesterov momentum requires a momentum and zero dampening")
    end
end

function SGD:_run(k, group, params, grads, buffers, first)
    local hyper = self:_hyper_tensor(first and k .. ":first" or k, group, 7, function()
        return {
            group.lr, group.momentum, group.dampening, group.weight_decay, group.nesterov and 1 or 0,
            group.maximize and 1 or 0, first and 1 or 0,
        }
    end)
    pg._C.sgd_step_(hyper, params, grads, buffers)
end

function SGD:_step_group(group, k)
    local params, grads, buffers = {}, {}, {}
    local new_params, new_grads, new_buffers = {}, {}, {}
    local with_momentum = group.momentum ~= 0
    for _, p in ipairs(group.params) do
        local grad = p.grad
        if grad ~= nil then
            local state = with_momentum and self.state[p.id]
            if not with_momentum then
                params[#params + 1], grads[#grads + 1] = p, grad
            elseif state and state.momentum_buffer then
                params[#params + 1], grads[#grads + 1], buffers[#buffers + 1] = p, grad, state.momentum_buffer
            else
                state = { momentum_buffer = Optimizer._zeros(p) }
                self.state[p.id] = state
                new_params[#new_params + 1], new_grads[#new_grads + 1] = p, grad
                new_buffers[#new_buffers + 1] = state.momentum_buffer
            end
        end
    end
    if #params > 0 then
        self:_run(k, group, params, grads, with_momentum and buffers or nil, false)
    end
    if #new_params > 0 then
        self:_run(k, group, new_params, new_grads, new_buffers, true)
    end
end

return SGD
