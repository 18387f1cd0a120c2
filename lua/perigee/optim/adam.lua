--- Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019), with PyTorch's formulas:
--   Adam: g = grad + weight_decay * p; AdamW: p = p * (1 - lr * weight_decay);
--   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
--   p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps); amsgrad: the running maximum of v.

local Optimizer = require("perigee.optim.optimizer")
local pg = require("perigee")

local function make(name, decoupled, weight_decay)
    local class = Optimizer.class(name, { "lr", "betas", "eps", "weight_decay", "amsgrad" }, {
        lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = weight_decay, amsgrad = false, maximize = false,
    })

    function class:_check(o)
        for _, option in ipairs { "lr", "eps", "weight_decay" } do
            Optimizer._check_rate(self._name, option, o[option], 0)
        end
        Optimizer._check_betas(self._name, o.betas)
    end

    local function new_state(p, amsgrad)
        return {
            step = 0, exp_avg = Optimizer._zeros(p), exp_avg_sq = Optimizer._zeros(p),
            max_exp_avg_sq = amsgrad and Optimizer._zeros(p) or nil,
        }
    end

    -- Parameters that have taken the same number of steps go together: one call, unless some had no gradient before.
    function class:_step_group(group, k)
        local batches, order = {}, {}
        for _, p in ipairs(group.params) do
            local grad = p.grad
            if grad ~= nil then
                local id = p.id
                local state = self.state[id]
                if not state then
                    state = new_state(p, group.amsgrad)
                    self.state[id] = state
                elseif group.amsgrad and not state.max_exp_avg_sq then
                    state.max_exp_avg_sq = Optimizer._zeros(p)
                end
                local step = state.step
                local batch = batches[step]
                if not batch then
                    batch = { states = {}, params = {}, grads = {}, m = {}, v = {}, max = {} }
                    batches[step] = batch
                    order[#order + 1] = batch
                end
                local n = #batch.params + 1
                batch.params[n], batch.grads[n], batch.m[n], batch.v[n] = p, grad, state.exp_avg, state.exp_avg_sq
                batch.max[n], batch.states[n] = state.max_exp_avg_sq, state
            end
        end
        for i, batch in ipairs(order) do
            local states, amsgrad = batch.states, group.amsgrad
            -- with the values a step is counted: a captured one at each run of its graph
            local hyper = self:_hyper_tensor(i == 1 and k or k .. ":" .. i, group, 9, function()
                local step = states[1].step + 1
                for _, state in ipairs(states) do
                    state.step = step
                end
                return {
                    group.lr, group.betas[1], group.betas[2], group.eps, group.weight_decay, decoupled and 1 or 0,
                    step, amsgrad and 1 or 0, group.maximize and 1 or 0,
                }
            end)
            pg._C.adam_step_(hyper, batch.params, batch.grads, batch.m, batch.v, amsgrad and batch.max or nil)
        end
    end
    return class
end

return { Adam = make("Adam", false, 0), AdamW = make("AdamW", true, 1e-2) }
