local pg = require "perigee"
local numbers = require "spec.support.numbers"

local F = pg.nn.functional
local random, close, refuses = numbers.random, numbers.close, numbers.refuses

-- (m, k) @ (k, n) by the definition, in double.
local function product(a, b)
    local x, y = a:detach():to(pg.float64):totable(), b:detach():to(pg.float64):totable()
    local out = {}
    for i = 1, #x do
        out[i] = {}
        for j = 1, #y[1] do
            local sum = 0
            for k = 1, #y do sum = sum + x[i][k] * y[k][j] end
            out[i][j] = sum
        end
    end
    return pg.tensor(out, { dtype = pg.float64 })
end

describe("matmul", function()
    it("multiplies matrices of every size, around the tiles' edges", function()
        for _, dtype in ipairs { pg.float32, pg.float64 } do
            local tolerance = dtype == pg.float32 and 2e-6 or 1e-14
            for _, size in ipairs { { 1, 1, 1 }, { 1, 7, 33 }, { 13, 1, 40 }, { 14, 32, 16 }, { 15, 33, 17 },
                { 29, 65, 31 },
                { 6, 16, 8 }, { 7, 17, 9 }, { 40, 20, 400 } } do
                local m, n, k = unpack(size)
                local a, b = random({ m, k }, { dtype = dtype }), random({ k, n }, { dtype = dtype })
                local expected = product(a, b)
                close(a:matmul(b), expected, tolerance * (1 + k / 30))
                local at, bt = a:t():contiguous():t(), b:t():contiguous():t()
                close(at:matmul(b), expected, tolerance * (1 + k / 30))
                close(a:matmul(bt), expected, tolerance * (1 + k / 30))
                close(at:matmul(bt), expected, tolerance * (1 + k / 30))
            end
        end
    end)

    it("takes any strides", function()
        local big = random({ 6, 8, 10 })
        local a, b = big:select(1, 3)[{ {}, { 0, nil, 2 } }], big:select(0, 1):narrow(0, 1, 5)
        close(a:matmul(b), product(a:contiguous(), b:contiguous()), 1e-6)
        local wide = random({ 1, 5 }):expand(4, 5)
        close(wide:matmul(b), product(wide:contiguous(), b:contiguous()), 1e-6)
        local tall = random({ 4, 1 }):expand(4, 5)
        close(tall:matmul(b), product(tall:contiguous(), b:contiguous()), 1e-6)
    end)

    it("treats vectors as a row on the left and a column on the right", function()
        local m, v, w = random({ 3, 4 }), random({ 4 }), random({ 3 })
        assert.are.same({ 3 }, { unpack(m:matmul(v).shape) })
        assert.are.same({ 4 }, { unpack(w:matmul(m).shape) })
        assert.are.same({}, { unpack(v:matmul(v).shape) })
        close(m:matmul(v), product(m, v:unsqueeze(1)):squeeze(1), 1e-6)
        close(w:matmul(m), product(w:unsqueeze(0), m):squeeze(0), 1e-6)
        close(v:dot(v), v:mul(v):sum(), 1e-6)
        close(m:mv(v), m:matmul(v), 0)
        local batch = random({ 2, 3, 4 })
        close(batch:matmul(v)[1], product(batch[1], v:unsqueeze(1)):squeeze(1), 1e-6)
    end)

    it("broadcasts batches", function()
        local a, b = random({ 2, 1, 3, 4 }), random({ 5, 4, 2 })
        local c = a:matmul(b)
        assert.are.same({ 2, 5, 3, 2 }, { unpack(c.shape) })
        for i = 0, 1 do
            for j = 0, 4 do close(c[i][j], product(a[i][0], b[j]), 1e-6) end
        end
        -- heads of (B, T, H, D) taken forward: batches that do not lie evenly
        local q = random({ 2, 5, 3, 4 }):transpose(1, 2)
        local scores = q:matmul(q:transpose(-2, -1))
        for i = 0, 1 do
            for j = 0, 2 do close(scores[i][j], product(q[i][j]:contiguous(), q[i][j]:t():contiguous()), 1e-6) end
        end
        local folded = random({ 2, 3, 4 })
        local w = random({ 4, 6 })
        local y = folded:matmul(w)
        for i = 0, 1 do close(y[i], product(folded[i], w), 1e-6) end
        close(w:t():matmul(folded:transpose(1, 2))[1], product(w:t():contiguous(), folded[1]:t():contiguous()), 1e-6)
        close(folded:bmm(random({ 2, 4, 1 }) * 0 + 1), folded:sum(2, true), 1e-6)
    end)

    it("multiplies integers exactly", function()
        local a = pg.int64 { { 3, -2 }, { 3037000500LL, 1 } }
        local b = pg.int64 { { 5, 1 }, { 7, 3037000499LL } }
        assert.are.same({ 1, -6074000995 }, a:matmul(b)[0]:totable())
        assert.are.same({ { 22, 28 }, { 49, 64 } },
            pg.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = pg.int8 }):mm(
                pg.tensor({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, { dtype = pg.int8 })):totable())
    end)

    it("rounds halves once", function()
        for _, dtype in ipairs { pg.float16, pg.bfloat16 } do
            local a, b = random({ 5, 40 }):to(dtype), random({ 40, 3 }):to(dtype)
            close(a:matmul(b):to(pg.float32), product(a:to(pg.float32),
                b:to(pg.float32)):to(dtype):to(pg.float32), 1e-2)
            assert.are.equal(dtype, a:matmul(b).dtype)
        end
    end)

    it("gives zeros for an empty inner size, and empty results", function()
        assert.are.same({ { 0, 0 }, { 0, 0 } }, random({ 2, 3 }):narrow(1, 0, 0):matmul(random({ 3,
            2 }):narrow(0, 0, 0)):totable())
        assert.are.same({ 0, 2 }, { unpack(random({ 1, 3 }):narrow(0, 0, 0):matmul(random({ 3, 2 })).shape) })
    end)

    it("lets NaN and infinity through", function()
        local a = pg.tensor { { 0 / 0, 1 }, { 1 / 0, 0 } }
        local c = a:matmul(pg.tensor { { 1, 0 }, { 1, 0 } }):totable()
        assert.is_true(c[1][1] ~= c[1][1] and c[1][2] ~= c[1][2] and c[2][1] == 1 / 0 and c[2][2] ~= c[2][2])
    end)

    it("gives the same bits at every thread count", function()
        local shapes = { { 70, 300, 65 }, { 300, 70, 400 }, { 1, 3000, 200 }, { 500, 1, 700 }, { 33, 1100, 33 } }
        for _, s in ipairs(shapes) do
            local a, b = random({ s[1], s[2] }), random({ s[2], s[3] })
            numbers.same_at_every_thread_count(function()
                return { a:matmul(b), F.linear(a, b:t():contiguous()), a:t():contiguous():t():matmul(b) }
            end)
        end
    end)

    it("multiplies halves of any size and transposition in float32, the same at every thread count", function()
        local shapes = { { 1, 1, 1 }, { 5, 3, 7 }, { 14, 2, 32 }, { 29, 17, 33 }, { 1, 500, 300 }, { 300, 385, 1 },
            { 169, 385, 257 } }
        for dtype, tolerance in pairs { [pg.bfloat16] = 4e-3, [pg.float16] = 5e-4 } do
            for _, s in ipairs(shapes) do
                local a, b = random({ s[1], s[2] }):to(dtype), random({ s[2], s[3] }):to(dtype)
                local exact = a:to(pg.float64):matmul(b:to(pg.float64))
                local function products()
                    local at, bt = a:t():contiguous():t(), b:t():contiguous():t()
                    return { a:matmul(b), at:matmul(b), a:matmul(bt), at:matmul(bt) }
                end
                for _, c in ipairs(products()) do
                    assert.are.equal(dtype, c.dtype)
                    local off = (c:to(pg.float64) - exact):abs():max() / exact:abs():max()
                    assert.is_true(off:item() <= tolerance)
                end
                numbers.same_at_every_thread_count(products)
            end
        end
        local a, b, c = random({ 2, 3, 9, 8 }), random({ 8, 17 }), random({ 17 })
        a, b, c = a:to(pg.bfloat16), b:to(pg.bfloat16), c:to(pg.bfloat16)
        local exact = F.linear(a:to(pg.float64), b:t():to(pg.float64), c:to(pg.float64))
        close(F.linear(a, b:t(), c):to(pg.float64), exact, 3e-2)
        close(pg.addmm(c, a[0][0], b, { beta = 2, alpha = 0.5 }):to(pg.float64),
            a[0][0]:to(pg.float64):matmul(b:to(pg.float64)) * 0.5 + c:to(pg.float64) * 2, 3e-2)
    end)

    it("writes into out", function()
        local out = pg.tensor { { 9, 9 }, { 9, 9 } }
        local a = pg.tensor { { 1, 2 }, { 3, 4 } }
        pg.matmul(a, a, { out = out })
        assert.are.same({ { 7, 10 }, { 15, 22 } }, out:totable())
    end)

    it("sums gradients over broadcast batches and folded ones", function()
        local a, w = random({ 3, 2, 4 }, { requires_grad = true }), random({ 4, 5 }, { requires_grad = true })
        local g = random({ 3, 2, 5 })
        a:matmul(w):backward(g)
        close(w.grad, product(a:detach():reshape(6, 4):t():contiguous(), g:reshape(6, 5)), 1e-6)
        local b = random({ 4, 2 }, { requires_grad = true })
        local q = random({ 2, 3, 4 }, { requires_grad = true })
        q:transpose(0, 1):matmul(b):sum():backward()
        close(b.grad, q:detach():sum({ 0, 1 }):unsqueeze(1):expand(4, 2):contiguous(), 1e-6)
    end)

    it("says what does not fit", function()
        refuses("matmul: inner sizes differ: [64, 128] @ [100, 10]", function()
            random({ 64, 128 }):matmul(random({ 100, 10 }))
        end)
        refuses("matmul: inner sizes differ: [3] @ [4]", function() random({ 3 }):matmul(random({ 4 })) end)
        refuses("matmul: batch sizes do not broadcast: [2, 3, 4] @ [3, 4, 5]", function()
            random({ 2, 3, 4 }):matmul(random({ 3, 4, 5 }))
        end)
        refuses("matmul: both arguments need at least one dimension, got [] and [3]", function()
            pg.tensor(1):matmul(random({ 3 }))
        end)
        refuses("matmul: expected both arguments to have the same dtype, got float32 and float64", function()
            random({ 2, 2 }):matmul(random({ 2, 2 }, { dtype = pg.float64 }))
        end)
        refuses("matmul: not available for bool", function() pg.bool { { true } }:matmul(pg.bool { { true } }) end)
        refuses("mm: input must be 2-dimensional, got shape [3]", function() random({ 3 }):mm(random({ 3, 3 })) end)
        refuses("bmm: mat2 must be 3-dimensional, got shape [3, 3]", function()
            random({ 2, 3, 3 }):bmm(random({ 3, 3 }))
        end)
        refuses("bmm: batch sizes differ: [1, 3, 3] @ [2, 3, 3]", function()
            random({ 1, 3, 3 }):bmm(random({ 2, 3, 3 }))
        end)
        refuses("mv: vec must be 1-dimensional, got shape [3, 1]", function() random({ 3, 3 }):mv(random({ 3, 1 })) end)
        refuses("dot: input must be 1-dimensional", function() random({ 3, 3 }):dot(random({ 3 })) end)
    end)
end)

describe("addmm", function()
    it("adds a scaled product to a scaled, broadcast input", function()
        local c, a, b = random({ 3 }), random({ 2, 4 }), random({ 4, 3 })
        close(pg.addmm(c, a, b, { beta = 0.5, alpha = 2 }), a:matmul(b):mul(2):add(c * 0.5), 1e-6)
        local nan = pg.tensor { 0 / 0 }
        close(pg.addmm(nan, a, b, { beta = 0 }), a:matmul(b), 1e-6)
        assert.are.same({ { 8 } }, pg.addmm(pg.int64 { { 2 } }, pg.int64 { { 2 } }, pg.int64 { { 3 } }):totable())
    end)
    it("says what does not fit", function()
        refuses("addmm: input of shape [2, 3] does not expand to [2, 4]", function()
            pg.addmm(random({ 2, 3 }), random({ 2, 2 }), random({ 2, 4 }))
        end)
        refuses("addmm: for integral tensors, alpha and beta must be integers", function()
            pg.addmm(pg.int64 { { 2 } }, pg.int64 { { 2 } }, pg.int64 { { 3 } }, { alpha = 0.5 })
        end)
    end)
end)

describe("linear", function()
    it("is input @ weight^T + bias over the last dimension", function()
        local x, w, b = random({ 2, 3, 4 }), random({ 5, 4 }), random({ 5 })
        local y = F.linear(x, w, b)
        assert.are.same({ 2, 3, 5 }, { unpack(y.shape) })
        close(y, x:matmul(w:t()):add(b), 1e-6)
        close(F.linear(x[0][0], w), w:mv(x[0][0]), 1e-6)
        local t = x:transpose(0, 1)
        close(F.linear(t, w, b), t:contiguous():matmul(w:t()):add(b), 1e-6)
    end)

    it("applies an activation as the op of that name would", function()
        -- a library's epilogue may round its tanh another way
        local within = pg.get_default_device() == "cpu" and 0 or 1e-6
        local x, w, b = random({ 37, 20 }), random({ 70, 20 }), random({ 70 })
        local z = F.linear(x, w, b)
        close(F.linear(x, w, b, { activation = "relu" }), z:relu(), within)
        close(F.linear(x, w, b, { activation = "gelu" }), F.gelu(z), within)
        close(F.linear(x, w, b, { activation = "gelu_tanh" }), F.gelu(z, "tanh"), within)
        w:requires_grad_()
        local g = random({ 37, 70 })
        for name, apply in pairs { relu = F.relu, gelu = F.gelu } do
            local fused = pg.autograd.grad(F.linear(x, w, b, { activation = name }), w, { grad_outputs = g })
            close(fused, pg.autograd.grad(apply(F.linear(x, w, b)), w, { grad_outputs = g }), within)
        end
        refuses("linear: activation: expected one of 'relu', 'gelu', 'gelu_tanh', got 'tanh'", function()
            F.linear(x, w, b, { activation = "tanh" })
        end)
    end)

    it("gives the gradients of input, weight and bias", function()
        local x = random({ 6, 4 }, { requires_grad = true })
        local w, b = random({ 5, 4 }, { requires_grad = true }), random({ 5 }, { requires_grad = true })
        local g = random({ 6, 5 })
        F.linear(x, w, b):backward(g)
        close(x.grad, product(g, w), 1e-6)
        close(w.grad, product(g:t():contiguous(), x), 1e-6)
        close(b.grad, g:sum(0), 1e-6)
    end)

    it("says what does not fit", function()
        refuses("linear: input of shape [2, 3] does not fit weight of shape [5, 4]: expected a "
            .. "last dimension of 4", function()
            F.linear(random({ 2, 3 }), random({ 5, 4 }))
        end)
        refuses("linear: expected bias of shape [5] for weight of shape [5, 4], got [4]", function()
            F.linear(random({ 2, 4 }), random({ 5, 4 }), random({ 4 }))
        end)
        refuses("linear: weight must be 2-dimensional, got shape [4]", function()
            F.linear(random({ 2, 4 }), random({ 4 }))
        end)
    end)
end)
