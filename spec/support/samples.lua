--- Inputs on which the specs try ops: samples[SYMBOL] is a list of samples, each a list of tensors with, where the op
--- takes more than these, call(op, ...) that calls it on them (and may give several tensors). Every row with a gradient
--- has one.
--
-- Values are in general position: no ties, nothing at a kink, nothing near a pole.

local pg = require "perigee"

local samples = {}

local state = 1

-- A fixed stream in [0, 1).
local function uniform()
    state = (state * 1103515245 + 12345) % 2147483648
    return state / 2147483648
end

local function count(shape)
    local n = 1
    for _, size in ipairs(shape) do n = n * size end
    return n
end

local function make(shape, value, options)
    local list = {}
    for k = 1, count(shape) do list[k] = value(k) end
    local t = pg.tensor(list, { dtype = pg.float64 })
    if #shape == 0 then return pg.tensor(list[1], options) end
    t = t:reshape(shape)
    if options.requires_grad then t:requires_grad_() end
    return t
end

local GRAD = { dtype = pg.float64, requires_grad = true }

--- float64 with a gradient, values in ±[0.15, 1.65), none equal.
function samples.real(...)
    return make({ ... }, function(k)
        local v = 0.15 + uniform() * 1.4 + k * 1e-3
        return uniform() < 0.5 and v or -v
    end, GRAD)
end

--- The same, in [0.3, 1.8).
function samples.positive(...)
    return make({ ... }, function(k) return 0.3 + uniform() * 1.4 + k * 1e-3 end, GRAD)
end

--- The same, in (low, high).
function samples.within(low, high, ...)
    return make({ ... }, function() return low + (high - low) * (0.05 + 0.9 * uniform()) end, GRAD)
end

--- float64 without a gradient.
function samples.constant(...)
    return samples.real(...):detach()
end

--- A transposed or strided one: values of a non-contiguous tensor (its last two dimensions swapped).
function samples.strided(...)
    local shape = { ... }
    local n = #shape
    shape[n], shape[n - 1] = shape[n - 1], shape[n]
    return samples.real(unpack(shape)):detach():transpose(-1, -2):requires_grad_()
end

local real, positive, within, strided = samples.real, samples.positive, samples.within, samples.strided

--- One sample with a call.
local function with(call, ...)
    local sample = { ... }
    sample.call = call
    return sample
end
samples.with = with

-- ---- pointwise ----

for _, symbol in ipairs { "pg_add", "pg_sub", "pg_rsub", "pg_mul", "pg_div", "pg_maximum", "pg_minimum" } do
    samples[symbol] = {
        { real(2, 3), real(2, 3) },
        { real(2, 3), real(3) },
        { strided(2, 3), real(4, 1, 1) },
    }
end
for _, symbol in ipairs { "pg_add", "pg_sub", "pg_rsub", "pg_mul", "pg_div" } do
    table.insert(samples[symbol], with(function(op, x) return op(x, 2.5) end, real(2, 3)))
end
for _, symbol in ipairs { "pg_add", "pg_sub", "pg_rsub" } do
    table.insert(samples[symbol], with(function(op, x, y) return op(x, y, { alpha = 3 }) end, real(2, 3), real(3)))
end

local function number(...)
    local arguments = { ... }
    return function(op, x) return op(x, unpack(arguments)) end
end

for _, mode in ipairs { "trunc", "floor" } do
    table.insert(samples.pg_div, with(function(op, x, y)
        return op(x, y, { rounding_mode = mode })
    end, within(2.1, 2.9, 2), within(0.9, 1.04, 2)))
end
samples.pg_floor_divide = { { within(2.1, 2.9, 2, 2), within(0.9, 1.04, 2) }, with(number(0.75), within(0.8, 1.4, 3)) }
for _, symbol in ipairs { "pg_remainder", "pg_fmod" } do
    samples[symbol] = {
        { within(2.1, 2.9, 2, 2), within(0.9, 1.04, 2) }, { within(-2.9, -2.1, 2), within(0.9, 1.04, 2) },
        with(number(0.75), within(0.8, 1.4, 3)),
    }
end
samples.pg_pow = {
    { positive(2, 3), strided(2, 3) },
    { positive(2, 1), real(3) },
    with(number(3), real(2, 3)),
    with(number(2), real(2, 3)),
    with(number(1), real(3)),
    with(number(0), real(3)),
    with(number(-0.5), positive(3)),
}
samples.pg_pow_base = { with(function(op, x) return op(2.5, x) end, real(2, 3)) }
for _, symbol in ipairs { "pg_max_other", "pg_min_other", "pg_atan2" } do
    samples[symbol] = { { real(2, 3), real(2, 3) }, { strided(2, 3), real(3) } }
end
samples.pg_lerp = {
    { real(2, 3), real(3), real(2, 1) }, { real(2), real(2), within(0.6, 0.9, 2) },
    with(function(op, x, y) return op(x, y, 0.3) end, real(2, 3), real(3)),
}
for _, symbol in ipairs { "pg_addcmul", "pg_addcdiv" } do
    samples[symbol] = {
        { real(2, 3), strided(2, 3), real(3) },
        with(function(op, x, y, z) return op(x, y, z, { value = -0.5 }) end, real(3), real(2, 3), real(2, 1)),
    }
end
local choice = pg.bool { { true, false, true }, { false, false, true } }
samples.pg_where = {
    with(function(op, x, y) return op(choice, x, y) end, real(2, 3), real(3)),
    with(function(op, x) return op(choice, x, 2) end, strided(2, 3)),
    with(function(op, x) return op(choice, 2, x) end, real(2, 3)),
}
samples.pg__where = {
    with(function(op, x, y) return op(x, choice, y) end, real(2, 3), real(3)),
    with(function(op, x) return op(x, choice, 2) end, strided(2, 3)),
}
samples.pg_clamp = {
    with(number(-0.5, 0.5), real(2, 3)), with(number(0.5), real(5)), with(number(nil, 0.5), real(5)),
    with(function(op, x, low, high)
        return op(x, low, high)
    end, real(2, 4), within(-0.6, -0.2, 4), within(0.2, 0.6, 2, 1)),
    with(function(op, x, low) return op(x, low, 0.5) end, real(6), within(-0.6, 0.4, 6)),
    with(function(op, x, high) return op(x, -0.5, high) end, real(6), within(-0.4, 0.6, 6)),
}

-- ---- one operand ----

for _, name in ipairs {
    "neg", "abs", "sign", "square", "exp", "expm1", "exp2", "reciprocal", "sin", "cos", "tan", "sinh", "cosh", "tanh",
    "sigmoid", "erf", "relu", "gelu", "silu", "softplus", "leaky_relu", "logsigmoid", "elu", "relu6", "hardtanh",
} do
    samples["pg_" .. name] = { { real(2, 3) }, { strided(2, 3) } }
end
for _, name in ipairs { "log", "log1p", "log2", "log10", "sqrt", "rsqrt" } do
    samples["pg_" .. name] = { { positive(2, 3) } }
end
for _, name in ipairs { "floor", "ceil", "trunc", "round" } do
    samples["pg_" .. name] = { { within(0.6, 0.9, 3) }, { within(-0.4, -0.1, 3) } }
end
table.insert(samples.pg_round, with(number { decimals = 1 }, within(0.56, 0.64, 3)))
table.insert(samples.pg_gelu, with(number("tanh"), real(2, 3)))
table.insert(samples.pg_softplus, with(number(2, 1), within(0.6, 2, 4)))
table.insert(samples.pg_softplus, with(number(2, 1), within(-2, 0.4, 4)))
table.insert(samples.pg_leaky_relu, with(number(0.25), real(4)))
table.insert(samples.pg_elu, with(number(0.5), real(4)))
table.insert(samples.pg_hardtanh, with(number(-0.5, 0.7), within(-2, 2, 6)))

-- ---- views ----

local function in_place(call)
    return function(op, x, ...)
        local y = x * 1
        call(op, y, ...)
        return y
    end
end
samples.in_place = in_place

samples.pg_view = { with(function(op, x) return op(x, 3, 4) end, real(2, 6)) }
samples.pg_reshape = {
    with(function(op, x) return op(x, 3, 4) end, real(2, 6)),
    with(function(op, x) return op(x, -1) end, strided(2, 3)),
}
samples.pg_alias_view = { { real(2, 3) } }
samples.pg_flatten = { { real(2, 3, 2) }, with(function(op, x) return op(x, 1, 2) end, strided(2, 3, 2)) }
samples.pg_unflatten = { with(function(op, x) return op(x, 1, { 2, -1 }) end, real(2, 6)) }
samples.pg_squeeze = { { real(1, 3, 1) }, with(function(op, x) return op(x, 0) end, real(1, 3, 1)) }
samples.pg_unsqueeze = { with(function(op, x) return op(x, -1) end, real(2, 3)) }
samples.pg_permute = { with(function(op, x) return op(x, 2, 0, 1) end, real(2, 3, 2)) }
samples.pg_transpose = { with(function(op, x) return op(x, 0, -1) end, real(2, 3, 2)) }
samples.pg_t = { { real(2, 3) }, { real(3) } }
samples.pg_movedim = { with(function(op, x) return op(x, { 0, 1 }, { 2, 0 }) end, real(2, 3, 2)) }
samples.pg_expand = { with(function(op, x) return op(x, 4, 2, -1) end, real(2, 3)) }
samples.pg_narrow = { with(function(op, x) return op(x, 1, 1, 2) end, real(2, 4)) }
samples.pg_select = { with(function(op, x) return op(x, 1, -1) end, real(2, 4)) }
samples.pg_slice = { with(function(op, x) return op(x, 1, 1, nil, 2) end, real(2, 5)) }
samples.pg_split = { with(function(op, x) return unpack(op(x, 2, 1)) end, real(2, 5)) }
samples.pg_split_sections = { with(function(op, x) return unpack(op(x, { 1, 4 }, 1)) end, real(2, 5)) }
samples.pg_chunk = { with(function(op, x) return unpack(op(x, 2, 1)) end, real(2, 5)) }
samples.pg_unbind = { with(function(op, x) return unpack(op(x, 1)) end, real(2, 3)) }
samples.pg_diagonal = { { real(3, 4) }, with(function(op, x) return op(x, 1, 2, 0) end, real(3, 2, 4)) }
samples.pg_as_strided = {
    with(function(op, x) return op(x, { 2, 2 }, { 3, 1 }, 1) end, real(3, 3)),
    with(function(op, x) return op(x, { 3, 3 }, { 1, 1 }) end, real(6)),
}
samples.pg_contiguous = { { strided(2, 3) }, { real(2, 3) } }
samples.pg_clone = { { strided(2, 3) } }
samples.pg__to = { with(function(op, x) return op(x, { copy = true }) end, real(2, 3)) }
samples.pg_copy_ = {
    with(in_place(function(op, y, src) op(y, src) end), real(2, 3), real(3)),
    with(function(op, x, src)
        local y = x * 1
        op(y[0], src)
        return y
    end, real(2, 3), real(3)),
}
samples.pg_fill_ = {
    with(in_place(function(op, y) op(y, 2) end), real(2, 3)),
    with(function(op, x, value)
        local y = x * 1
        op(y[{ {}, 1 }], value)
        return y
    end, real(2, 3), samples.real()),
}
samples.pg_zero_ = {
    with(function(op, x)
        local y = x * 1
        op(y[1])
        return y
    end, real(2, 3)),
}

-- ---- indexing ----

samples.pg_index = {
    with(function(op, x) return op(x, { pg.int64 { 2, 0, 0 } }, { 0 }) end, real(3, 2)),
    with(function(op, x)
        return op(x, { pg.int64 { { 1, 0 } }, pg.int64 { { 0 }, { 1 } } }, { 0, 2 })
    end, real(2, 3, 2)),
    with(function(op, x) return op(x, { pg.bool { { true, false }, { true, true } } }, { 0 }) end, real(2, 2, 2)),
}
samples.pg_index_put = {
    with(function(op, x, v) return op(x, { pg.int64 { 2, 0 } }, { 0 }, v) end, real(3, 2), real(2, 2)),
    with(function(op, x, v) return op(x, { pg.int64 { 0, 0, 1 } }, { 1 }, v, true) end, real(3, 2), real(3, 3)),
}
samples.pg_index_put_ = {
    with(in_place(function(op, y, v) op(y, { pg.int64 { 2, 0 } }, { 0 }, v) end), real(3, 2), real(2, 2)),
}
samples.pg_gather = {
    with(function(op, x) return op(x, 1, pg.int64 { { 0, 2, 2 }, { 1, 0, 1 } }) end, real(2, 3)),
}
samples.pg_scatter = {
    with(function(op, x, src) return op(x, 1, pg.int64 { { 0, 2 }, { 1, 0 } }, src) end, real(2, 3), real(2, 2)),
    with(function(op, x) return op(x, 0, pg.int64 { { 0, 1, 0 } }, 2) end, real(2, 3)),
}
samples.pg_scatter_add = {
    with(function(op, x, src) return op(x, 1, pg.int64 { { 0, 0 }, { 1, 0 } }, src) end, real(2, 3), real(2, 2)),
}
samples.pg_index_select = { with(function(op, x) return op(x, 1, pg.int64 { 2, 0, 2 }) end, real(2, 3)) }
samples.pg_index_add = {
    with(function(op, x, src) return op(x, 0, pg.int64 { 1, 1, 0 }, src, { alpha = 2 }) end, real(2, 3), real(3, 3)),
}
samples.pg_masked_fill = {
    with(function(op, x) return op(x, pg.bool { { true }, { false } }, 3) end, real(2, 3)),
    with(function(op, x, value) return op(x, pg.bool { true, false, true }, value) end, real(2, 3), samples.real()),
}
samples.pg_masked_select = { with(function(op, x) return op(x, pg.bool { true, false, true }) end, real(2, 3)) }

-- ---- rearranging ----

samples.pg_cat = { with(function(op, x, y) return op({ x, y }, 1) end, real(2, 3), strided(2, 2)) }
samples.pg_stack = { with(function(op, x, y) return op({ x, y }, 1) end, real(2, 3), strided(2, 3)) }
samples.pg_hstack = { with(function(op, x, y) return op({ x, y }) end, real(2, 3), real(2, 2)) }
samples.pg_vstack = { with(function(op, x, y) return op({ x, y }) end, real(2, 3), real(3)) }
samples.pg_tril = { { real(3, 4) }, with(function(op, x) return op(x, -1) end, strided(2, 3, 3)) }
samples.pg_triu = { { real(3, 4) }, with(function(op, x) return op(x, 1) end, strided(2, 3, 3)) }
samples.pg_repeat = { with(function(op, x) return op(x, 2, 1, 2) end, real(2, 3)) }
samples.pg_tile = { with(function(op, x) return op(x, 2) end, real(2, 3)) }
samples.pg_repeat_interleave = {
    with(function(op, x) return op(x, 2, 0) end, real(2, 3)),
    with(function(op, x) return op(x, 2) end, real(2, 3)),
}
samples.pg_flip = { with(function(op, x) return op(x, 0, 1) end, real(2, 3)) }
samples.pg_roll = {
    with(function(op, x) return op(x, 1, 1) end, real(2, 3)),
    with(function(op, x) return op(x, { 1, 2 }, { 0, 1 }) end, real(2, 3)),
}

-- ---- products ----

samples.pg_matmul = {
    { real(2, 3), strided(3, 4) },
    { real(3), real(3) },
    { real(3), real(3, 2) },
    { real(2, 3), real(3) },
    { real(2, 1, 2, 3), strided(3, 3, 2) },
    { real(2, 3, 2), real(2) },
}
samples.pg_mm = { { real(2, 3), strided(3, 4) }, { strided(2, 3), real(3, 1) } }
samples.pg_bmm = { { real(2, 2, 3), strided(2, 3, 2) } }
samples.pg_mv = { { strided(2, 3), real(3) } }
samples.pg_dot = { { real(4), real(4) } }
samples.pg_addmm = {
    { real(2, 4), real(2, 3), strided(3, 4) },
    with(function(op, x, a, b) return op(x, a, b, { beta = 0.5, alpha = 2 }) end, real(4), real(2, 3), real(3, 4)),
}
samples.pg_linear = {
    { real(2, 3), real(4, 3), real(4) },
    with(function(op, x, w) return op(x, w) end, real(2, 2, 3), real(4, 3)),
    with(function(op, x, w, b) return op(x, w, b, { activation = "relu" }) end, real(3, 2), real(4, 2), real(4)),
    with(function(op, x, w, b) return op(x, w, b, { activation = "gelu" }) end, real(3, 2), real(4, 2), real(4)),
    with(function(op, x, w) return op(x, w, { activation = "gelu_tanh" }) end, real(3, 2), real(4, 2)),
}

-- ---- networks ----

for _, symbol in ipairs { "pg_softmax", "pg_log_softmax" } do
    samples[symbol] = {
        with(function(op, x) return op(x, -1) end, real(2, 5)),
        with(function(op, x) return op(x, 0) end, strided(3, 2)),
        with(function(op, x) return op(x, 1) end, real(2, 3, 2)),
    }
end
samples.pg_layer_norm = {
    with(function(op, x, w, b) return op(x, 5, w, b) end, real(3, 5), real(5), real(5)),
    with(function(op, x, w, b) return op(x, { 2, 3 }, w, b, 0.1) end, strided(2, 2, 3), real(2, 3), real(2, 3)),
    with(function(op, x) return op(x, { 4 }) end, real(2, 4)),
    with(function(op, x, w) return op(x, { 4 }, w) end, real(2, 4), real(4)),
    with(function(op, x, b) return op(x, { 4 }, nil, b) end, real(2, 4), real(4)),
}
samples.pg_add_layer_norm = {
    with(function(op, x, r, w, b) return op(x, r, 5, w, b) end, real(3, 5), strided(3, 5), real(5), real(5)),
    with(function(op, x, r) return (op(x, r, { 2, 3 }, { eps = 0.1 })) end, strided(2, 2, 3), real(2, 2, 3)),
    with(function(op, x, r, w) return (select(2, op(x, r, { 4 }, w))) end, real(2, 4), real(2, 4), real(4)),
    with(function(op, x, r, b) return op(x, r, { 4 }, nil, b) end, real(2, 4), real(2, 4), real(4)),
}
samples.pg_embedding = {
    with(function(op, w) return op(pg.int64 { { 2, 0 }, { 2, 3 } }, w) end, real(4, 3)),
    with(function(op, w) return op(pg.int64 { 1, 0, 1 }, w, 3) end, strided(4, 3)),
}
samples.pg_embedding_backward = {
    with(function(op, g) return op(g, pg.int64 { 2, 0, 2 }, 4, -1) end, real(3, 2)),
    with(function(op, g) return op(g, pg.int64 { { 1, 0 }, { 3, 1 } }, 4, 1) end, real(2, 2, 3)),
}
samples.pg_dropout = {
    with(function(op, x)
        pg.manual_seed(1)
        return op(x, 0.4)
    end, real(4, 3)),
    with(function(op, x) return op(x, 0.4, false) * 1 end, real(2, 3)),
}
samples.pg_scaled_dot_product_attention = {
    { real(2, 2, 3, 2), real(2, 2, 4, 2), real(2, 2, 4, 3) },
    with(function(op, q, k, v) return op(q, k, v, { is_causal = true, scale = 0.7 }) end,
        strided(1, 2, 3, 2), strided(1, 2, 3, 2), strided(1, 2, 3, 2)),
    with(function(op, q, k, v, mask) return op(q, k, v, mask) end, real(2, 3, 2), real(2, 4, 2), real(2, 4, 2),
        real(3, 4)),
    with(function(op, q, k, v)
        return op(q, k, v, pg.bool { { true, false, true }, { true, true, false } })
    end, real(2, 2), real(3, 2), real(3, 2)),
    with(function(op, q, k, v) return op(q, k, v, { enable_gqa = true, is_causal = true }) end,
        real(1, 4, 3, 2), real(1, 2, 3, 2), real(1, 2, 3, 2)),
    with(function(op, q, k, v)
        pg.manual_seed(3)
        return op(q, k, v, nil, 0.3)
    end, real(1, 2, 3, 2), real(1, 2, 4, 2), real(1, 2, 4, 2)),
}

local probabilities = pg.tensor({ { 0.2, 0.5, 0.3 }, { 0.1, 0.1, 0.8 } }, { dtype = pg.float64 })
local class_weights = pg.tensor({ 0.5, 1.5, 2 }, { dtype = pg.float64 })
samples.pg_cross_entropy = {
    with(function(op, x) return op(x, pg.int64 { 2, 0 }) end, real(2, 3)),
    with(function(op, x) return op(x, pg.tensor(1, { dtype = pg.int64 })) end, real(3)),
    with(function(op, x)
        return op(x, pg.int64 { 2, -100, 0 }, class_weights, { label_smoothing = 0.2 })
    end, strided(3, 3)),
    with(function(op, x) return op(x, pg.int64 { 1, 0 }, { reduction = "none", ignore_index = 0 }) end, real(2, 3)),
    with(function(op, x) return op(x, pg.int64 { { 1, 0 }, { 2, 2 } }, { reduction = "sum" }) end, real(2, 3, 2)),
    with(function(op, x) return op(x, probabilities, class_weights, { label_smoothing = 0.1 }) end, real(2, 3)),
    with(function(op, x, t) return op(x, t, { reduction = "sum" }) end, real(2, 3), samples.positive(2, 3)),
    with(function(op, x, t) return op(x, t, { reduction = "none" }) end, real(2, 3, 2), samples.positive(2, 3, 2)),
}
samples.pg_nll_loss = {
    with(function(op, x) return op(x, pg.int64 { 2, 0 }) end, real(2, 3)),
    with(function(op, x) return op(x, pg.int64 { 2, -100 }, class_weights) end, real(2, 3)),
    with(function(op, x) return op(x, pg.int64 { { 1, 0 }, { 2, 2 } }, { reduction = "none" }) end, real(2, 3, 2)),
}
samples.pg_mse_loss = {
    { real(2, 3), real(2, 3) },
    with(function(op, x, y) return op(x, y, { reduction = "none" }) end, real(2, 3), real(3)),
}
samples.pg_l1_loss = {
    { samples.positive(2, 3), samples.within(-2, -1, 2, 3) },
    with(function(op, x, y) return op(x, y, { reduction = "sum" }) end, samples.positive(2, 3),
        samples.within(-2, -1, 2, 3)),
}
samples.pg_binary_cross_entropy_with_logits = {
    { real(2, 3), samples.within(0, 1, 2, 3) },
    with(function(op, x, y)
        return op(x, y, class_weights, { pos_weight = class_weights * 0.5, reduction = "sum" })
    end, real(2, 3), samples.within(0, 1, 2, 3)),
}

-- ---- reductions ----

for _, symbol in ipairs { "pg_sum", "pg_mean", "pg_amax", "pg_amin", "pg_var", "pg_std" } do
    samples[symbol] = {
        { real(2, 3) },
        with(function(op, x) return op(x, 1) end, strided(2, 3)),
        with(function(op, x) return op(x, { 0, 2 }, { keepdim = true }) end, real(2, 3, 2)),
    }
end
samples.pg_prod = { { real(2, 3) } }
samples.pg_prod_dim = {
    with(function(op, x) return op(x, 1) end, strided(2, 5)),
    -- one zero, and two in one row: the gradient of the others is not 0 / 0
    with(function(op, x) return op(x, 1) end,
        pg.tensor({ { 0.5, 0, 1.5 }, { 0, 2, 0 } }, { dtype = pg.float64, requires_grad = true })),
}
samples.pg_max, samples.pg_min = { { real(2, 3) } }, { { real(2, 3) } }
for _, symbol in ipairs { "pg_max_dim", "pg_min_dim" } do
    samples[symbol] = {
        with(function(op, x) return (op(x, 1)) end, strided(2, 3)),
        with(function(op, x) return (op(x, 0, true)) end, real(3, 2)),
    }
end
samples.pg_norm = {
    { real(2, 3) },
    with(function(op, x) return op(x, 1) end, real(2, 3)),
    with(function(op, x) return op(x, 3, 1) end, strided(2, 3)),
    with(function(op, x) return op(x, math.huge, 0, true) end, real(2, 3)),
}
samples.pg_logsumexp = {
    with(function(op, x) return op(x, 1) end, strided(2, 3)),
    with(function(op, x) return op(x, { 0, 2 }, true) end, real(2, 3, 2)),
}
samples.pg_cumsum = {
    with(function(op, x) return op(x, 0) end, real(3, 2)),
    with(function(op, x) return op(x, -1) end, strided(2, 3)),
}

-- ---- sorting ----

samples.pg_sort = {
    with(function(op, x) return (op(x)) end, strided(2, 3)),
    with(function(op, x) return (op(x, 0, true)) end, real(4, 2)),
}
samples.pg_topk = {
    with(function(op, x) return (op(x, 2)) end, strided(2, 4)),
    with(function(op, x) return (op(x, 1, 0, false)) end, real(4, 2)),
}

-- ---- networks ----

local function classes(...) return pg.int64 { ... } end

for _, symbol in ipairs { "pg_softmax", "pg_log_softmax", "pg_softmin" } do
    samples[symbol] = {
        with(function(op, x) return op(x, -1) end, strided(2, 4)),
        with(function(op, x) return op(x, 1) end, real(2, 3, 2)),
    }
end
samples.pg_cross_entropy = {
    with(function(op, x) return op(x, classes(2, 0, 1)) end, real(3, 4)),
    with(function(op, x)
        return op(x, classes(2, -100, 1), { weight = pg.float64 { 1, 2, 0.5, 1 }, label_smoothing = 0.1 })
    end, real(3, 4)),
    with(function(op, x) return op(x, classes(2, 0, 1), { reduction = "none" }) end, real(3, 4)),
    with(function(op, x, p) return op(x, p, { reduction = "sum" }) end, real(3, 4), positive(3, 4)),
    with(function(op, x) return op(x, pg.int64 { { 0, 2 }, { 1, 1 } }) end, real(2, 3, 2)),
}
samples.pg_linear_cross_entropy = {
    with(function(op, x, w) return op(x, w, classes(2, 0, 1)) end, real(3, 5), real(4, 5)),
    with(function(op, x, w, b)
        return op(x, w, classes(2, -100, 1), {
            linear_bias = b, weight = pg.float64 { 1, 2, 0.5, 1 }, label_smoothing = 0.1,
        })
    end, real(3, 5), real(4, 5), real(4)),
    with(function(op, x, w, b)
        return op(x, w, classes(2, 0, 1), { linear_bias = b, reduction = "none", ignore_index = 0 })
    end, strided(3, 5), strided(4, 5), real(4)),
    with(function(op, x, w) return op(x, w, pg.tensor(1, { dtype = pg.int64 }), { reduction = "sum" }) end,
        real(5), real(4, 5)),
    with(function(op, x, w, b, p) return op(x, w, p, { linear_bias = b }) end, real(3, 5), real(4, 5), real(4),
        positive(3, 4)),
    with(function(op, x, w, b) return op(x, w, pg.int64 { { 0, 2 }, { 1, 1 } }, { linear_bias = b }) end,
        real(2, 3), real(4, 2, 3), real(4, 2)),
}
samples.pg_nll_loss = {
    with(function(op, x) return op(x, classes(2, 0, 1)) end, real(3, 4)),
    with(function(op, x)
        return op(x, classes(2, -100, 1), { weight = pg.float64 { 1, 2, 0.5, 1 }, reduction = "sum" })
    end, real(3, 4)),
}
for _, symbol in ipairs { "pg_mse_loss", "pg_l1_loss", "pg_smooth_l1_loss", "pg_huber_loss" } do
    samples[symbol] = {
        { real(2, 3), strided(2, 3) },
        with(function(op, x, y) return op(x, y, { reduction = "sum" }) end, real(2, 3), real(2, 3)),
        with(function(op, x, y) return op(x, y, { reduction = "none" }) end, real(2, 3), real(2, 3)),
    }
end
samples.pg_binary_cross_entropy_with_logits = {
    { real(2, 3), within(0.1, 0.9, 2, 3) },
    with(function(op, x, y)
        return op(x, y, { weight = pg.float64 { 1, 2, 3 }, pos_weight = pg.float64 { 2, 1, 0.5 }, reduction = "sum" })
    end, real(2, 3), within(0.1, 0.9, 2, 3)),
}
samples.pg_binary_cross_entropy = { { within(0.1, 0.9, 2, 3), within(0.1, 0.9, 2, 3) } }
samples.pg_embedding = {
    with(function(op, w) return op(pg.int64 { { 1, 0, 3 }, { 1, 1, 2 } }, w) end, real(4, 3)),
    with(function(op, w) return op(pg.int64 { 1, 0, 3 }, w, { padding_idx = 2 }) end, real(4, 3)),
}
samples.pg_layer_norm = {
    with(function(op, x, w, b) return op(x, 4, w, b) end, real(3, 4), real(4), real(4)),
    with(function(op, x) return op(x, { 3, 2 }) end, real(2, 3, 2)),
    with(function(op, x, w) return op(x, { 4 }, w) end, strided(3, 4), real(4)),
}
local function fixed_seed(call)
    return function(...)
        pg.manual_seed(7)
        return call(...)
    end
end
samples.pg_dropout = {
    with(fixed_seed(function(op, x) return op(x, 0.4, true) end), real(3, 4)),
    with(function(op, x) return op(x, 0.4, false) end, real(3, 4)),
}
samples.pg_scaled_dot_product_attention = {
    { real(2, 3, 4), real(2, 5, 4), real(2, 5, 4) },
    with(function(op, q, k, v) return op(q, k, v, { is_causal = true }) end, real(1, 2, 4, 3), real(1, 2, 4, 3),
        real(1, 2, 4, 3)),
    with(function(op, q, k, v)
        return op(q, k, v, { attn_mask = pg.bool { { true, false, true }, { true, true, true } }, scale = 0.3 })
    end, real(2, 2, 3), real(2, 3, 3), real(2, 3, 2)),
    with(function(op, q, k, v, m) return op(q, k, v, m) end, real(2, 2, 3), real(2, 3, 3), real(2, 3, 2), real(2, 3)),
    with(fixed_seed(function(op, q, k, v) return op(q, k, v, nil, 0.3) end), real(2, 2, 3), real(2, 3, 3),
        real(2, 3, 2)),
}

return samples
