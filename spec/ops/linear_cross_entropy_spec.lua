local pg = require "perigee"
local numbers = require "spec.support.numbers"

local F = pg.nn.functional
local random, close, refuses = numbers.random, numbers.close, numbers.refuses

local function leaf(shape, dtype) return random(shape, { dtype = dtype or pg.float64, requires_grad = true }) end

--- n class ids, the first of them ignored.
local function ids_of(n, classes)
    local list = {}
    for k = 1, n do list[k] = (k * 7) % classes end
    list[1] = -100
    return pg.int64(list)
end

--- The same by linear and cross_entropy.
local function apart(x, w, target, options)
    local o = { reduction = "mean" }
    for key, value in pairs(options or {}) do o[key] = value end
    local bias = o.linear_bias
    o.linear_bias = nil
    return F.cross_entropy(F.linear(x, w, bias), target, o)
end

--- The gradients of a loss as a list; its own is 1.5, not one.
local function grads_of(loss, inputs, options)
    local o = { grad_outputs = pg.full_like(loss:detach(), 1.5) }
    for key, value in pairs(options or {}) do o[key] = value end
    return { pg.autograd.grad(loss, inputs, o) }
end

describe("linear_cross_entropy", function()
    local kind = pg.get_default_device():match "^%a+"
    local x, w, b = leaf { 6, 5 }, leaf { 11, 5 }, leaf { 11 }
    local ids = ids_of(6, 11)

    -- one class, a part of a vector, whole vectors, one more, several rows of 64
    for _, classes in ipairs { 1, 3, 11, 64, 65, 700 } do
        it(("is cross_entropy of linear, with its gradients: %d classes"):format(classes), function()
            local head, bias, target = leaf { classes, 5 }, leaf { classes }, ids_of(6, classes)
            local weight = random({ classes }, { dtype = pg.float64 }) + 1.5
            for _, reduction in ipairs { "mean", "sum", "none" } do
                for _, o in ipairs {
                    {}, { linear_bias = bias }, { weight = weight, label_smoothing = 0.2 },
                    { linear_bias = bias, weight = weight, ignore_index = 0 },
                } do
                    o.reduction = reduction
                    if o.ignore_index then target = target:abs() % classes end
                    local inputs = { x, head, o.linear_bias }
                    local one, other = F.linear_cross_entropy(x, head, target, o), apart(x, head, target, o)
                    close(one, other, 1e-13)
                    local grads = grads_of(one, inputs)
                    for k, g in ipairs(grads_of(other, inputs)) do
                        close(grads[k], g, 1e-13)
                    end
                end
            end
        end)
    end

    it("gives each input its gradient where the others need none", function()
        local wanted = grads_of(apart(x, w, ids, { linear_bias = b }), { x, w, b })
        for k, input in ipairs { x, w, b } do
            local given = { x:detach(), w:detach(), b:detach() }
            given[k] = input
            local loss = F.linear_cross_entropy(given[1], given[2], ids, { linear_bias = given[3] })
            close(grads_of(loss, input)[1], wanted[k], 1e-13)
        end
    end)

    it("keeps its logits where the graph is kept", function()
        for _, dtype in ipairs { pg.float64, pg.float32, pg.bfloat16 } do
            local hidden, head = leaf({ 6, 5 }, dtype), leaf({ 11, 5 }, dtype)
            local loss = F.linear_cross_entropy(hidden, head, ids)
            local first = grads_of(loss, { hidden, head }, { retain_graph = true })
            local second = grads_of(loss, { hidden, head }, { retain_graph = true })
            local last = grads_of(loss, { hidden, head })
            for k = 1, 2 do
                close(second[k], first[k], 0)
                close(last[k], first[k], 0)   -- over the logits: the same bits
            end
            refuses("run backward a second time through LinearCrossEntropyBackward0", function()
                grads_of(loss, { hidden, head })
            end)
        end
    end)

    it("can be differentiated again", function()
        local function penalty(f)
            local g = grads_of(f(x, w, ids, { linear_bias = b, label_smoothing = 0.1 }), { x, w, b },
                { create_graph = true })
            return grads_of((g[1] ^ 2):sum() + (g[2] ^ 3):sum() + (g[3] ^ 2):sum(), { x, w, b })
        end
        local mine, theirs = penalty(F.linear_cross_entropy), penalty(apart)
        for k = 1, 3 do close(mine[k], theirs[k], 1e-12) end
        -- and once more after its first gradient was recorded
        local loss = F.linear_cross_entropy(x, w, ids)
        local first = grads_of(loss, x, { create_graph = true })[1]
        close(grads_of(loss, x)[1], first:detach(), 1e-13)
    end)

    it("allocates one matrix of logits for both ways, where the graph goes", function()
        -- far above what a product may take for itself: 32 MiB on a GPU
        local gpu = kind ~= "cpu" and os.getenv("PERIGEE_CUDA") ~= "emulated"
        local n, classes = gpu and 8192 or 128, 8193
        local function check(dtype, cast)
            local hidden, head = leaf({ n, 4 }, dtype), leaf({ classes, 4 }, dtype)
            local target = pg.randint(0, classes, { n })
            local matrix = n * classes * (cast and 2 or hidden:element_size())
            local function peak(f, options)
                hidden.grad, head.grad = nil, nil
                collectgarbage()
                collectgarbage()
                pg.collect()
                local before = pg.memory_allocated(kind)
                pg.reset_peak_memory_stats(kind)
                pg.scope(function()
                    local loss
                    if cast then
                        loss = pg.autocast(kind, { dtype = cast }, f, hidden, head, target)
                    else
                        loss = f(hidden, head, target)
                    end
                    loss:backward(nil, options)
                end)
                return (pg.max_memory_allocated(kind) - before) / matrix
            end
            local joined = peak(F.linear_cross_entropy)
            assert.is_true(joined >= 1 and joined < 1.5, joined)
            -- the measure sees a second one
            assert.is_true(peak(F.linear_cross_entropy, { retain_graph = true }) >= 2)
            assert.is_true(peak(apart) >= (cast and 5 or 2))   -- in float32 too, and so the gradient
        end
        check(pg.float32)
        -- the cpu takes halves through float32 pieces in scratch
        if kind ~= "cpu" then
            check(pg.bfloat16)
            check(pg.float32, pg.bfloat16)
        end
    end)

    it("begins rows of logits at multiples of 64 elements", function()
        local hidden, head, target = leaf { 100, 4 }, leaf { 1, 4 }, pg.zeros(100):to(pg.int64)
        local before = pg.memory_allocated(kind)
        local loss = F.linear_cross_entropy(hidden, head, target)
        local taken = pg.memory_allocated(kind) - before
        assert.is_true(taken >= 100 * 64 * 8 and taken < 2 * 100 * 64 * 8, taken)
        loss:free()
    end)

    it("works in halves, its loss of another dtype where one is asked for", function()
        for _, dtype in ipairs { pg.bfloat16, pg.float16 } do
            local hidden, head = leaf({ 6, 5 }, dtype), leaf({ 70, 5 }, dtype)
            local loss = F.linear_cross_entropy(hidden, head, ids)
            assert.are.equal(dtype, loss.dtype)
            local wide = F.linear_cross_entropy(hidden, head, ids, { dtype = pg.float32 })
            assert.are.equal(pg.float32, wide.dtype)
            close(wide:to(dtype), loss, 0)
            close(wide, apart(hidden, head, ids):to(pg.float32), 0.02)
            local mine = grads_of(loss, { hidden, head })
            local theirs = grads_of(apart(hidden, head, ids), { hidden, head })
            for k = 1, 2 do
                assert.are.equal(dtype, mine[k].dtype)
                close(mine[k]:to(pg.float32), theirs[k]:to(pg.float32), 0.01)
            end
        end
    end)

    it("multiplies in autocast's dtype and sums in float32", function()
        local hidden, head, bias = leaf({ 6, 5 }, pg.float32), leaf({ 70, 5 }, pg.float32), leaf({ 70 }, pg.float32)
        -- 257/256 is no bfloat16: the classes' weights stay as they are
        local options = { linear_bias = bias, weight = pg.full({ 70 }, 257 / 256), reduction = "sum" }
        for _, dtype in ipairs { pg.bfloat16, pg.float16 } do
            local function under(f)
                return pg.autocast(kind, { dtype = dtype }, f, hidden, head, ids, options)
            end
            local mine, theirs = under(F.linear_cross_entropy), under(apart)
            assert.are.equal(pg.float32, mine.dtype)
            close(mine, theirs, 1e-6)
            local low = apart(hidden:detach():to(dtype), head:detach():to(dtype), ids,
                { linear_bias = bias:detach():to(dtype), reduction = "sum" })
            assert.is_true(math.abs(mine:item() / low:item() - 257 / 256) < 0.01)
            local scale = pg.full({}, 1024)
            local g = grads_of(mine * scale, { hidden, head, bias })
            for k, wanted in ipairs(grads_of(theirs * scale, { hidden, head, bias })) do
                assert.are.equal(pg.float32, g[k].dtype)
                close(g[k], wanted, dtype == pg.bfloat16 and 4e-3 or 5e-4)
            end
        end
        local double = pg.autocast(kind, { dtype = pg.bfloat16 }, F.linear_cross_entropy, x, w, ids)
        assert.are.equal(pg.float64, double.dtype)
    end)

    it("takes probabilities, and losses of many dimensions", function()
        local shares = leaf { 6, 11 }
        local mine = F.linear_cross_entropy(x, w, shares, { linear_bias = b, label_smoothing = 0.1 })
        local theirs = apart(x, w, shares, { linear_bias = b, label_smoothing = 0.1 })
        close(mine, theirs, 1e-13)
        local g = grads_of(mine, { x, w, b, shares })
        for k, wanted in ipairs(grads_of(theirs, { x, w, b, shares })) do close(g[k], wanted, 1e-13) end
        local deep = leaf { 4, 3, 5 }
        local target = pg.int64 {
            { 0, 1, 2 }, { 3, 3, 0 }, { 1, 1, 1 }, { 2, 0, -100 }, { 0, 0, 3 }, { 1, 2, 3 },
        }
        local logits = F.linear(x, deep:reshape(12, 5)):reshape(6, 4, 3)
        close(F.linear_cross_entropy(x, deep, target), F.cross_entropy(logits, target), 1e-13)
    end)

    it("takes one sample, none, and any strides", function()
        local one = pg.tensor(4, { dtype = pg.int64 })
        local loss = F.linear_cross_entropy(x[1], w, one, { linear_bias = b, reduction = "none" })
        assert.same({}, { unpack(loss.shape) })
        close(loss, apart(x[1], w, one, { linear_bias = b }), 1e-13)
        close(grads_of(loss, x)[1], grads_of(apart(x[1], w, one, { linear_bias = b }), x)[1], 1e-13)
        local none = leaf { 0, 5 }
        local nothing = F.linear_cross_entropy(none, w, pg.empty({ 0 }, { dtype = pg.int64 }), { reduction = "sum" })
        close(nothing, pg.zeros({}, { dtype = pg.float64 }), 0)
        local g = grads_of(nothing, { none, w })
        assert.same({ 0, 5 }, { unpack(g[1].shape) })
        close(g[2], pg.zeros(11, 5, { dtype = pg.float64 }), 0)
        local mean = F.linear_cross_entropy(none, w, pg.empty({ 0 }, { dtype = pg.int64 })):item()
        assert.is_true(mean ~= mean)
        local turned, spread, far = leaf { 5, 6 }, leaf { 11, 10 }, leaf { 22 }
        local part, bias = spread:narrow(1, 3, 5), far:view(11, 2):select(1, 1)
        local target = pg.stack({ ids, ids }, 1):select(1, 0)
        close(F.linear_cross_entropy(turned:t(), part, target, { linear_bias = bias }),
            apart(turned:t():contiguous(), part:contiguous(), ids, { linear_bias = bias:contiguous() }), 1e-13)
    end)

    it("gives the same bits at every thread count", function()
        local hidden, head, target = leaf({ 300, 33 }, pg.float32), leaf({ 65, 33 }, pg.float32), ids_of(300, 65)
        numbers.same_at_every_thread_count(function()
            local loss = F.linear_cross_entropy(hidden, head, target)
            return { loss, unpack(grads_of(loss, { hidden, head })) }
        end)
    end)

    it("says what does not fit", function()
        local op = F.linear_cross_entropy
        refuses("linear_cross_entropy: for input of shape [6, 5] and linear_weight of shape [11, 5] expected target "
            .. "of shape [6] (class ids) or [6, 11] (probabilities), got [3]",
            function() op(x, w, pg.int64 { 1, 2, 3 }) end)
        refuses("linear_cross_entropy: index 11 is out of range for a dimension of size 11",
            function() op(x, w, pg.int64 { 1, 11, 0, 0, 0, 0 }) end)
        refuses("linear_cross_entropy: index -1 is out of range",
            function() op(x, w, pg.int64 { 1, -1, 0, 0, 0, 0 }) end)
        refuses("linear_cross_entropy: expected class ids of dtype int64, got float64",
            function() op(x, w, x:select(1, 0)) end)
        refuses("linear_cross_entropy: expected floating probabilities, got int64",
            function() op(x, w, pg.zeros(6, 11):to(pg.int64)) end)
        refuses("linear_cross_entropy: ignore_index is for class ids, but target ([6, 11]) holds probabilities",
            function() op(x, w, pg.zeros(6, 11), { ignore_index = 1 }) end)
        refuses("linear_cross_entropy: expected input of shape [in_features] or [N, in_features], got [2, 3, 5]: "
            .. "flatten",
            function() op(x:reshape(2, 3, 5), w, ids:reshape(2, 3)) end)
        refuses("linear_cross_entropy: input of shape [6, 5] does not fit linear_weight of shape [11, 4]: expected a "
            .. "last dimension of 4", function() op(x, w:narrow(1, 0, 4), ids) end)
        refuses("linear_cross_entropy: expected linear_weight of shape [C, in_features], got [11]",
            function() op(x, b, ids) end)
        refuses("linear_cross_entropy: expected a linear_weight of at least one class, got shape [0, 5]",
            function() op(x, w:narrow(0, 0, 0), ids) end)
        refuses("linear_cross_entropy: a linear_weight of shape [4, 3, 5] needs a batched input",
            function() op(x[0], leaf { 4, 3, 5 }, pg.int64 { 0, 1, 2 }) end)
        refuses("linear_cross_entropy: expected linear_bias of shape [11] for linear_weight of shape [11, 5], got [5]",
            function() op(x, w, ids, { linear_bias = x[0] }) end)
        refuses("linear_cross_entropy: expected weight of shape [11] for linear_weight of shape [11, 5], got [2]",
            function() op(x, w, ids, { weight = pg.tensor { 1, 2 } }) end)
        refuses("linear_cross_entropy: expected linear_weight and linear_bias of the dtype of input, float64, "
            .. "got float32", function() op(x, w:to(pg.float32), ids) end)
        refuses("linear_cross_entropy: expected a floating input, got int64",
            function() op(ids:view(1, 6), ids:view(1, 6), pg.int64 { 0 }) end)
        refuses("linear_cross_entropy: label_smoothing must be between 0 and 1, got 2",
            function() op(x, w, ids, { label_smoothing = 2 }) end)
        refuses("linear_cross_entropy: weight has no gradient", function() op(x, w, ids, { weight = b }) end)
        refuses("linear_cross_entropy: expected a floating dtype, got int64",
            function() op(x, w, ids, { dtype = pg.int64 }) end)
        -- and the engine goes on
        close(op(x, w, ids), apart(x, w, ids), 1e-13)
    end)
end)
