local pg = require("perigee")

local schedules = pg.optim.lr_scheduler

local function optimizer_of(rates)
    local groups = {}
    for k, lr in ipairs(rates) do
        groups[k] = { params = { pg.ones(1) }, lr = lr }
    end
    return pg.optim.SGD(groups)
end

local function close(expected, actual)
    assert.is_true(math.abs(expected - actual) <= 1e-12, ("expected %.17g, got %.17g"):format(expected, actual))
end

local FACTORS = {
    power = function(epoch) return 0.9 ^ epoch end,
}

-- What a schedule sets, epoch by epoch: rates of the first group.
local function course(scheduler, n)
    local rates = { scheduler.optimizer.param_groups[1].lr }
    for i = 2, n do
        scheduler.optimizer:step()
        scheduler:step()
        rates[i] = scheduler.optimizer.param_groups[1].lr
        assert.equal(rates[i], scheduler:get_last_lr()[1])
    end
    return rates
end

local function assert_course(expected, rates)
    assert.equal(#expected, #rates)
    for i = 1, #expected do
        close(expected[i], rates[i])
    end
end

describe("lr_scheduler", function()
    -- Every schedule is compared with PyTorch's fixtures in spec/fixtures/training_spec.lua.

    -- The expected rates of the next three are what torch 2.15 gives.
    it("LinearLR", function()
        assert_course({ 0.025, 0.0375, 0.05, 0.0625, 0.075, 0.075, 0.075, 0.075 },
            course(schedules.LinearLR(optimizer_of { 0.1 }, 0.25, 0.75, 4), 8))
    end)

    it("SequentialLR", function()
        local optimizer = optimizer_of { 0.1 }
        local scheduler = schedules.SequentialLR(optimizer, {
            schedules.LinearLR(optimizer, 0.1, 1, 3), schedules.CosineAnnealingLR(optimizer, 4, 0.001),
            schedules.StepLR(optimizer, 2, 0.5),
        }, { 3, 7 })
        assert_course({
            0.01, 0.04, 0.07, 0.1, 0.0855017856687341, 0.0505, 0.0154982143312659, 0.1, 0.1, 0.05, 0.05,
        }, course(scheduler, 11))
    end)

    it("chains", function()
        local optimizer = optimizer_of { 0.1 }
        local a, b = schedules.LinearLR(optimizer, 0.5, 1, 4), schedules.StepLR(optimizer, 2, 0.1)
        local rates = { optimizer.param_groups[1].lr }
        for i = 2, 7 do
            a:step()
            b:step()
            rates[i] = optimizer.param_groups[1].lr
        end
        assert_course({ 0.05, 0.0625, 0.0075, 0.00875, 0.001, 0.001, 0.0001 }, rates)
    end)

    it("WarmupCosineLR warms up, descends, stays", function()
        local rates = course(schedules.WarmupCosineLR(optimizer_of { 1 }, 4, 12, 0.1), 16)
        for t = 0, 3 do
            close((t + 1) / 5, rates[t + 1])
        end
        close(1, rates[5])
        close(0.55, rates[9])
        close(0.1, rates[13])
        close(0.1, rates[16])
        local flat = course(schedules.WarmupCosineLR(optimizer_of { 1 }, { lr_decay_iters = 3 }), 5)
        close(1, flat[1])
        close(0, flat[4])
        local short = schedules.WarmupCosineLR(optimizer_of { 1 }, 1, 1, 0.1)
        assert_course({ 0.5, 0.1, 0.1 }, course(short, 3))
    end)

    it("goes on from its state", function()
        local function make()
            local optimizer = optimizer_of { 0.1, 0.2 }
            return schedules.SequentialLR(optimizer, {
                schedules.WarmupCosineLR(optimizer, 2, 5, 0.01), schedules.CosineAnnealingLR(optimizer, 6),
            }, { 4 })
        end
        local whole, half, rest = make(), make(), make()
        local expected = course(whole, 10)
        local rates = course(half, 6)
        rest:load_state_dict(half:state_dict())
        rest.optimizer:load_state_dict(half.optimizer:state_dict())
        for _ = 7, 10 do
            rest:step()
            rates[#rates + 1] = rest.optimizer.param_groups[1].lr
        end
        assert.same(expected, rates)
        assert.has_error(function() rest:load_state_dict {} end)
        assert.has_error(function() rest:load_state_dict { last_epoch = 1 } end)
    end)

    it("works inside scopes, every one of them", function()
        local function sequential(optimizer)
            return schedules.SequentialLR(optimizer, {
                schedules.LinearLR(optimizer), schedules.StepLR(optimizer, 1),
            }, { 2 })
        end
        local makers = {
            LambdaLR = function(o) return schedules.LambdaLR(o, FACTORS.power) end,
            StepLR = function(o) return schedules.StepLR(o, 2) end,
            CosineAnnealingLR = function(o) return schedules.CosineAnnealingLR(o, 4) end,
            LinearLR = schedules.LinearLR,
            WarmupCosineLR = function(o) return schedules.WarmupCosineLR(o, 1, 4) end,
            SequentialLR = sequential,
        }
        for name in pairs(schedules) do
            assert.is_not_nil(makers[name], name)
        end
        for _, make in pairs(makers) do
            local inside = pg.scope(function()
                local scheduler = make(optimizer_of { 0.1 })
                for _ = 1, 3 do
                    pg.scope(function()
                        scheduler.optimizer:step()
                        scheduler:step()
                    end)
                end
                return scheduler
            end)
            local outside = make(optimizer_of { 0.1 })
            course(outside, 4)
            inside:step()
            outside:step()
            assert.equal(outside:get_last_lr()[1], inside:get_last_lr()[1])
        end
    end)

    it("refuses what makes no sense", function()
        local optimizer = optimizer_of { 0.1 }
        assert.has_error(function() schedules.StepLR({}, 3) end)
        assert.has_error(function() schedules.StepLR(optimizer, 0) end)
        assert.has_error(function() schedules.StepLR(optimizer) end)
        assert.has_error(function() schedules.LambdaLR(optimizer, { math.sin, math.cos }) end)
        assert.has_error(function() schedules.CosineAnnealingLR(optimizer, 2.5) end)
        assert.has_error(function() schedules.LinearLR(optimizer, 0) end)
        assert.has_error(function() schedules.SequentialLR(optimizer, {}, {}) end)
        local s = schedules.StepLR(optimizer, 1)
        assert.has_error(function() schedules.SequentialLR(optimizer, { s, s }, {}) end)
        assert.has_error(function() schedules.SequentialLR(optimizer_of { 1 }, { s }, {}) end)
        assert.has_error(function() schedules.StepLR(optimizer_of { 1 }, 1, { last_epoch = 3 }) end)
        assert.has_error(function() schedules.StepLR(optimizer, 1, { gama = 3 }) end)
    end)
end)
