-- Kernels on CUDA take other ways by the size of what they are given (registers, shared memory, several launches): the
-- same numbers as on the cpu on each of these ways, in every dtype.
local pg = require "perigee"
local on_cuda = require "spec.support.on_cuda"
local shell = require "spec.build.shell"

local F = pg.nn.functional
local FLOATS = { "float32", "float64", "float16", "bfloat16" }
local ALL = { "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool" }
-- one of each size and kind is enough where what takes a second takes a minute
if shell.watches_races then ALL = { "float32", "float64", "bfloat16", "int64", "uint8", "bool" } end
local TOLERANCES = { float64 = 1e-12, float32 = 1e-5, float16 = 2e-3, bfloat16 = 1.6e-2 }

--- Fails unless y, on another device, is x: the same bits, or for floats where `near` is given a difference of at most
--- that share of the largest number (true: the dtype's own).
local function same(what, x, y, near)
    y = y:to("cpu")
    assert.same({ unpack(x.shape) }, { unpack(y.shape) })
    if x:numel() == 0 then return end
    local a, b = x:detach():reshape(-1), y:detach():reshape(-1)
    local float = x:is_floating_point()
    if float then a, b = a:to(pg.float64), b:to(pg.float64) end
    local equal = a:eq(b)
    if float then equal = equal:logical_or(a:isnan():logical_and(b:isnan())) end
    if equal:all():item() then return end
    assert.is_truthy(float and near, ("%s: %d of %d differ"):format(what, equal:logical_not():sum():item(), a:numel()))
    local size = pg.where(a:isfinite(), a:abs(), 0):max():item()
    local worst = pg.where(equal, 0, (a - b):abs()):max():item() / math.max(size, 1e-30)
    local allowed = near == true and TOLERANCES[tostring(x.dtype):match("%w+$")] or near
    assert.is_true(worst <= allowed, ("%s: largest difference %.3g of the largest number"):format(what, worst))
end

--- f's result and gradients for inputs on the cpu and on cuda.
local function both(what, f, inputs, near)
    local results = {}
    for _, device in ipairs { "cpu", "cuda" } do
        local leaves, list = {}, {}
        for k, x in ipairs(inputs) do leaves[k] = x:to(device):detach():requires_grad_() end
        local out = f(unpack(leaves))
        list[1] = out:detach()
        pg.manual_seed(5)
        local grad = pg.randn(math.max(out:numel(), 1), { device = "cpu" }):to(out.dtype)
        out:backward((grad:reshape(out.shape)):to(device))
        for _, leaf in ipairs(leaves) do list[#list + 1] = leaf.grad end
        results[device] = list
    end
    assert.equal(1 + #inputs, #results.cuda)
    for k, x in ipairs(results.cpu) do same(("%s, result %d"):format(what, k), x, results.cuda[k], near) end
end

local function draw(dtype, ...)
    if dtype == "bool" then return pg.randint(0, 2, { ... }):to(pg.bool) end
    if dtype == "uint8" then return pg.randint(0, 90, { ... }):to(pg.uint8) end
    if dtype:match("int") then return pg.randint(-50, 50, { ... }):to(pg[dtype]) end
    return (pg.randn(...) * 3):to(pg[dtype])
end

on_cuda("spec/devices/rows_spec.lua", function()
    local before = pg.get_default_device()
    setup(function()
        pg.set_default_device("cpu")
        pg.manual_seed(3)
    end)
    teardown(function() pg.set_default_device(before) end)

    describe("rows of any length", function()
        local LENGTHS = { 1, 5, 10, 16, 33, 64, 120, 256, 257, 264, 1000, 1024, 1032, 4096, 4104, 8192, 8200, 8201 }
        -- every dtype at the short ones, one in turn at the long ones; under the race checker always in turn
        local short = shell.watches_races and 0 or 300
        local function each(f)
            for k, n in ipairs(LENGTHS) do
                for d, dtype in ipairs(FLOATS) do
                    if n < short or (k + d) % #FLOATS == 0 then f(dtype, n > 1000 and 2 or 7, n) end
                end
            end
            for _, dtype in ipairs(FLOATS) do f(dtype, 2, 8200) end
        end

        it("softmax, log_softmax", function()
            each(function(dtype, rows, n)
                local x, what = draw(dtype, rows, n), ("%s of %d"):format(dtype, n)
                both("softmax, " .. what, function(t) return t:softmax(-1) end, { x }, true)
                both("log_softmax, " .. what, function(t) return t:log_softmax(-1) end, { x }, true)
                local special = x:clone()
                special[0][n - 1] = 0 / 0
                special[1][0] = -math.huge
                same(what, special:softmax(-1), special:to("cuda"):softmax(-1), true)
            end)
        end)

        it("layer_norm, with weight, bias, both and neither", function()
            local turn = 0
            each(function(dtype, rows, n)
                local x, w, b = draw(dtype, rows, n), draw(dtype, n), draw(dtype, n)
                local what = ("%s of %d"):format(dtype, n)
                turn = turn + 1
                if n > 1 and turn % 3 == 0 then
                    both(what, function(t) return F.layer_norm(t, { n }) end, { x }, true)
                    both(what, function(t, v) return F.layer_norm(t, { n }, v) end, { x, w }, true)
                else
                    both(what, function(t, v, u) return F.layer_norm(t, { n }, v, u) end, { x, w, b }, true)
                    both(what .. ", residual", function(t, r, v, u)
                        local y, sum = F.add_layer_norm(t, r, { n }, v, u)
                        return y + sum
                    end, { x, draw(dtype, rows, n), w, b }, true)
                end
            end)
            for _, n in ipairs(shell.watches_races and { 41 } or { 40, 41, 300, 301 }) do
                both("many rows", function(t, v, u) return F.layer_norm(t, { n }, v, u) end,
                    { draw("float32", 2100, n), draw("float32", n), draw("float32", n) }, 3e-5)
            end
            local w = pg.ones(8, { requires_grad = true, device = "cuda" })
            F.layer_norm(pg.zeros(0, 8, { device = "cuda" }), { 8 }, w):sum():backward()
            assert.same({ 0, 0, 0, 0, 0, 0, 0, 0 }, w.grad:totable())
        end)

        it("cross_entropy", function()
            local turn = 0
            each(function(dtype, rows, n)
                if n < 3 then return end
                turn = turn + 1
                local what = ("%s of %d"):format(dtype, n)
                -- a padded row's classes
                local x = turn % 2 == 0 and draw(dtype, rows, n) or draw(dtype, rows, n + 8):narrow(1, 0, n)
                local target, weight = pg.randint(0, n, { rows }), pg.rand(n):to(pg[dtype])
                target[1] = -100
                local shares = pg.rand(rows, n):softmax(-1):to(pg[dtype])
                for _, smoothing in ipairs { 0, 0.2 } do
                    local options = { reduction = "none", label_smoothing = smoothing }
                    both(what, function(t) return F.cross_entropy(t, target:to(t.device), options) end, { x }, true)
                    both(what .. ", weighted", function(t)
                        return F.cross_entropy(t, target:to(t.device), weight:to(t.device), options)
                    end, { x }, true)
                    both(what .. ", shares", function(t)
                        return F.cross_entropy(t, shares:to(t.device), weight:to(t.device), options)
                    end, { x }, true)
                end
            end)
        end)

        it("linear_cross_entropy", function()
            each(function(dtype, rows, n)
                local target = pg.randint(0, n, { rows })
                target[0] = -100
                local x, w = draw(dtype, rows, 3), draw(dtype, n, 3)
                both(("%s of %d"):format(dtype, n), function(a, b)
                    return F.linear_cross_entropy(a, b, target:to(a.device), { reduction = "none" })
                end, { x, w }, true)
            end)
        end)

        it("running sums, of one chunk and of thousands", function()
            for k, shape in ipairs { { 7 }, { 9000 }, { 100003 }, { 3, 20000 }, { 5, 300, 7 }, { 210001, 2 } } do
                local dtype = FLOATS[k % 2 + 1]
                local x = draw(dtype, unpack(shape))
                local dim = #shape == 3 and 1 or k == 6 and 0 or -1
                same(("%s of %d"):format(dtype, shape[1]), x:cumsum(dim), x:to("cuda"):cumsum(dim), true)
            end
            local ones = pg.ones({ 210001, 2 }, { dtype = pg.int64 })
            same("integers", ones:cumsum(0), ones:to("cuda"):cumsum(0))
        end)

        it("transposed copies", function()
            for _, dtype in ipairs(ALL) do
                for _, shape in ipairs { { 4, 64 }, { 33, 65 }, { 130, 70 }, { 3, 64, 129 }, { 2, 100, 3, 40 } } do
                    local x = draw(dtype, unpack(shape))
                    local what = ("%s, %d of %d"):format(dtype, shape[1], shape[2])
                    same(what, x:transpose(-1, -2):contiguous(), x:to("cuda"):transpose(-1, -2):contiguous())
                    same(what, x:transpose(0, -1):contiguous(), x:to("cuda"):transpose(0, -1):contiguous())
                end
            end
        end)

        it("sums of columns", function()
            for _, dtype in ipairs(FLOATS) do
                for _, shape in ipairs { { 16, 8 }, { 17, 264 }, { 400, 1032 }, { 3000, 8 }, { 90, 7 } } do
                    local x = draw(dtype, unpack(shape))
                    local what = ("%s, %d of %d"):format(dtype, shape[1], shape[2])
                    local there = x:to("cuda")
                    same(what, x:sum(0), there:sum(0), true)
                    same(what .. ", mean", x:mean(0), there:mean(0), true)
                    same(what .. ", some", x:narrow(1, 0, 4):sum(0), there:narrow(1, 0, 4):sum(0), true)
                end
            end
        end)

        it("sorted, and their best", function()
            for k, n in ipairs { 1, 2, 3, 31, 300, 2048, 2049, 4500, 9001 } do
                for d, dtype in ipairs(ALL) do
                    if n < short / 3 or (k + d) % 3 == 0 then
                        local x = draw(dtype, n > 1000 and 2 or 70, n)
                        if dtype:match("float") and n > 4 then
                            for i, v in ipairs { 0 / 0, math.huge, -math.huge, 0, -0.0 } do x[1][n - i] = v end
                        end
                        if dtype == "int32" or dtype == "int64" then x = x * 20000003 end
                        for _, largest in ipairs { true, false } do
                            local what = ("%s of %d, %s"):format(dtype, n, tostring(largest))
                            local values, at = x:sort({ descending = largest })
                            local values2, at2 = x:to("cuda"):sort({ descending = largest })
                            same(what, at, at2)
                            same(what, values, values2)
                            for _, best in ipairs { 1, math.ceil(n / 30), math.ceil(n / 2) } do
                                values, at = x:topk(best, -1, { largest = largest })
                                values2, at2 = x:to("cuda"):topk(best, -1, { largest = largest })
                                same(what .. " top", at, at2)
                                same(what .. " top", values, values2)
                            end
                        end
                    end
                end
            end
        end)
    end)

    describe("access by index", function()
        local function on(device, ...)
            local list = { ... }
            for k, x in ipairs(list) do list[k] = x:to(device) end
            return unpack(list)
        end

        it("adds and writes in the cpu's order, few and many", function()
            for _, dtype in ipairs(ALL) do
                for dim = 0, 1 do
                    for _, m in ipairs { 3, 70, 2500 } do
                        local x, shape = draw(dtype, 6, 11), { 6, 11 }
                        shape[dim + 1] = m
                        local source = draw(dtype, unpack(shape))
                        local index = pg.randint(0, x.shape[dim + 1], { m })
                        local what = ("%s, %d along %d"):format(dtype, m, dim)
                        if dtype ~= "bool" then
                            for _, alpha in ipairs { 1, -3 } do
                                local t, i, s = on("cuda", x, index, source)
                                same(what, x:index_add(dim, index, source, { alpha = alpha }),
                                    t:index_add(dim, i, s, { alpha = alpha }))
                            end
                        end
                        for _, accumulate in ipairs { true, false } do
                            if dtype ~= "bool" or not accumulate then
                                local values = dim == 0 and source or draw(dtype, m, 6)
                                local y = dim == 0 and x or x:transpose(0, 1)
                                local t, i, v = on("cuda", y, index, values)
                                same(what .. ", put", pg._C.index_put(y, { index }, { 0 }, values, accumulate),
                                    pg._C.index_put(t, { i }, { 0 }, v, accumulate))
                            end
                        end
                        same(what .. ", select", x:index_select(dim, index),
                            x:to("cuda"):index_select(dim, index:to("cuda")))
                    end
                    for _, lengths in ipairs { { 5, 9 }, { 6, 300 }, { 400, 11 }, { 2, 3 }, { 5000, 2 } } do
                        if lengths[2 - dim] <= (dim == 0 and 11 or 6) then
                            local x = draw(dtype, 6, 11)
                            local index = pg.randint(0, x.shape[dim + 1], lengths)
                            local source = draw(dtype, lengths[2], lengths[1]):transpose(0, 1)
                            local t, i, s = on("cuda", x, index, source)
                            local what = ("%s, %dx%d along %d"):format(dtype, lengths[1], lengths[2], dim)
                            same(what, x:gather(dim, index), t:gather(dim, i))
                            same(what, x:scatter(dim, index, source), t:scatter(dim, i, s))
                            if dtype ~= "bool" then
                                same(what, x:scatter_add(dim, index, source), t:scatter_add(dim, i, s))
                            end
                        end
                    end
                end
            end
        end)

        it("adds dense rows of floats, many to one", function()
            for _, dtype in ipairs(FLOATS) do
                for _, width in ipairs { 8, 600, 1032 } do
                    local m = width == 8 and 500 or 60
                    local x, index, source = draw(dtype, 9, width), pg.randint(0, 5, { m }), draw(dtype, m, width)
                    for _, alpha in ipairs { 1, -3 } do
                        local t, i, s = on("cuda", x, index, source)
                        same(("%s, rows of %d"):format(dtype, width), x:index_add(0, index, source, { alpha = alpha }),
                            t:index_add(0, i, s, { alpha = alpha }))
                    end
                end
            end
        end)

        it("finds what is true", function()
            for _, n in ipairs { 1, 15, 16, 4096, 4097, 70001 } do
                for _, share in ipairs { 0, 0.01, 0.5, 1 } do
                    local mask = pg.rand(n + 1):lt(share):narrow(0, n % 2, n)
                    same(("%d flags"):format(n), mask:nonzero(), mask:to("cuda"):nonzero())
                end
            end
        end)
    end)

    it("optimizers step many tensors of all sizes as the cpu does, bit for bit", function()
        local makers = {
            function(p) return pg.optim.SGD(p, { lr = 0.1, weight_decay = 0.1 }) end,
            function(p) return pg.optim.SGD(p, { lr = 0.1, momentum = 0.9, nesterov = true, maximize = true }) end,
            function(p) return pg.optim.Adam(p, { lr = 0.1, weight_decay = 0.1, amsgrad = true }) end,
            function(p) return pg.optim.AdamW(p, { lr = 0.1, weight_decay = 0.1 }) end,
        }
        for _, dtype in ipairs { "float32", "float64" } do
            for k, make in ipairs(makers) do
                local params = {}
                for _, device in ipairs { "cpu", "cuda" } do
                    pg.manual_seed(k)
                    local list = {}
                    for i = 1, k == 3 and 300 or 5 do
                        local size = i == 2 and 9001 or (i * 37) % 50 + 1
                        list[i] = pg.nn.Parameter(pg.randn(size + 1):to(pg[dtype]):to(device):narrow(0, i % 2, size))
                    end
                    local optimizer = make(list)
                    for _ = 1, 3 do
                        for _, p in ipairs(list) do
                            p.grad = pg.randn(p:numel()):to(pg[dtype]):to(device)
                        end
                        optimizer:step()
                    end
                    params[device] = list
                end
                for i, p in ipairs(params.cpu) do
                    same(("%s %d, parameter %d"):format(dtype, k, i), p:detach(), params.cuda[i]:detach())
                end
                for _, order in ipairs { 1, 2, 3, math.huge } do
                    local norms = {}
                    for device, list in pairs(params) do
                        for _, p in ipairs(list) do p.grad = p:detach():clone() end
                        norms[device] = pg.nn.utils.clip_grad_norm_(list, 1, { norm_type = order })
                    end
                    same("norm", norms.cpu, norms.cuda, dtype == "float64" and 1e-13 or 1e-6)
                    for i, p in ipairs(params.cpu) do
                        same("clipped", p.grad, params.cuda[i].grad, dtype == "float64" and 1e-13 or 1e-6)
                    end
                end
            end
        end
    end)
-- not guarded: closing and opening the memory around each of so many launches takes minutes
end, { "PERIGEE_CUDA_POISON=1 PERIGEE_CUDA_ORDER=7", "PERIGEE_CUDA_LATE=7" })
