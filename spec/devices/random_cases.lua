--- Ops on tensors of random shape, layout and dtype, as a list of cases for compare.lua: the same for every device.

local pg = require "perigee"

local F = pg.nn.functional

local FLOATS = { pg.float32, pg.float64, pg.float16, pg.bfloat16 }
local NUMBERS = { pg.float32, pg.float64, pg.float16, pg.bfloat16, pg.int64, pg.int32, pg.int16, pg.int8, pg.uint8 }

local POINTWISE = {
    { "add", 2 }, { "sub", 2 }, { "mul", 2 }, { "maximum", 2 }, { "minimum", 2 }, { "eq", 2 }, { "lt", 2 }, { "ge", 2 },
    { "neg", 1 }, { "abs", 1 }, { "sign", 1 }, { "square", 1 }, { "floor", 1 }, { "relu", 1 }, { "logical_not", 1 },
    { "div", 2, FLOATS }, { "exp", 1, FLOATS }, { "tanh", 1, FLOATS }, { "sigmoid", 1, FLOATS }, { "sqrt", 1, FLOATS },
    { "isnan", 1, FLOATS }, { "reciprocal", 1, FLOATS }, { "lerp", 3, FLOATS }, { "addcmul", 3, FLOATS },
}
local REDUCTIONS = {
    { "sum", NUMBERS }, { "mean", FLOATS }, { "amax", NUMBERS }, { "amin", NUMBERS }, { "var", FLOATS },
    { "logsumexp", FLOATS }, { "any", NUMBERS }, { "all", NUMBERS },
}
local ALONG = { "cumsum", "softmax", "log_softmax", "sort", "argsort", "argmax", "argmin", "max", "min", "flip" }

---@param device string
---@param count integer
---@param seed integer of shapes, layouts and choices
return function(device, count, seed)
    math.randomseed(seed)
    local random = math.random

    local function any(list) return list[random(#list)] end

    -- Mostly small ones; now and then empty, or more than a block of threads has.
    local function size()
        local r = random(20)
        return r == 1 and 0 or r == 2 and random(200, 700) or random(1, 9)
    end

    local function shape(ndim)
        local list, n = {}, 1
        for k = 1, ndim do
            local s = size()
            if n * s > 60000 then s = 2 end
            n = n * s
            list[k] = s
        end
        return list
    end

    -- A tensor of the shape: dense, permuted, every other element, or a part of a larger one.
    local function tensor(sizes, dtype)
        local layout, n = random(4), #sizes
        local function numbers(...)
            local t = pg.randn(..., { dtype = pg.float32 }) * 5
            return dtype == pg.uint8 and t:abs():to(dtype) or t:to(dtype)
        end
        if n == 0 or layout == 1 then return numbers(sizes) end
        if layout == 2 then
            local reversed, order = {}, {}
            for k = 1, n do reversed[k], order[k] = sizes[n + 1 - k], n - k end
            return numbers(reversed):permute(order)
        end
        local wide = { unpack(sizes) }
        if layout == 3 then
            wide[n] = 2 * wide[n]
            return numbers(wide)[{ "...", { 0, nil, 2 } }]
        end
        wide[1] = wide[1] + 3
        return numbers(wide):narrow(0, 2, sizes[1])
    end

    -- The shape with some sizes 1, or without its first dimensions: it broadcasts.
    local function broadcast(sizes)
        local list = {}
        for k = random(1, #sizes + 1), #sizes do list[#list + 1] = random(4) == 1 and 1 or sizes[k] end
        return list
    end

    local function text(t)
        local s = {}
        for k = 1, t:dim() do s[k] = ("%d/%d"):format(t:size(k - 1), t:stride(k - 1)) end
        return ("%s[%s]"):format(tostring(t.dtype):match "%w+$", table.concat(s, ", "))
    end

    local makers = {
        function()
            local name, inputs, dtypes = unpack(any(POINTWISE))
            local dtype, sizes = any(dtypes or NUMBERS), shape(random(0, 4))
            local list = { tensor(sizes, dtype) }
            for k = 2, inputs do list[k] = tensor(broadcast(sizes), dtype) end
            return name, list, function(...) return pg[name](...) end
        end,
        function()
            local name, dtypes = unpack(any(REDUCTIONS))
            local ndim = random(1, 4)
            local x, dims, keepdim = tensor(shape(ndim), any(dtypes)), {}, random(2) == 1
            for d = 0, ndim - 1 do
                if random(2) == 1 then dims[#dims + 1] = d end
            end
            if #dims == 0 then dims[1] = 0 end
            if name == "any" or name == "all" then dims = dims[1] end
            return name, { x }, function(t) return t[name](t, dims, { keepdim = keepdim }) end
        end,
        function()
            local name, ndim = any(ALONG), random(1, 3)
            local x, dim = tensor(shape(ndim), any(FLOATS)), random(0, ndim - 1)
            return name, { x }, function(t) return t[name](t, dim) end
        end,
        function()
            local dtype, m, k, n = any(FLOATS), size(), size(), size()
            local lead = any { {}, { 3 }, { 2, 3 } }
            local a, b = { unpack(lead) }, random(2) == 1 and { unpack(lead) } or {}
            a[#a + 1], a[#a + 2], b[#b + 1], b[#b + 2] = m, k, k, n
            return "matmul", { tensor(a, dtype), tensor(b, dtype) }, function(x, y) return x:matmul(y) end
        end,
        function()
            local dtype, rows, n = any(FLOATS), size(), random(1, 900)
            return "layer_norm", { tensor({ rows, n }, dtype), tensor({ n }, dtype), tensor({ n }, dtype) },
                function(x, w, b) return F.layer_norm(x, { n }, w, b) end
        end,
        function()
            local rows, classes = random(1, 40), random(2, 700)
            local ids = pg.randint(0, classes, { rows })
            return "cross_entropy", { tensor({ rows, classes }, any(FLOATS)), ids }, function(x, y)
                return F.cross_entropy(x, y, { reduction = "none" })
            end
        end,
        function()
            local sizes = shape(3)
            sizes[2] = random(1, 9)
            local ids = pg.randint(0, sizes[2], { random(0, 300) })
            return "index_select", { tensor(sizes, any(NUMBERS)), ids }, function(x, i) return x:index_select(1, i) end
        end,
        function()
            local sizes = { random(1, 9), size(), random(1, 9) }
            local n = random(0, 300)
            local ids = pg.randint(0, sizes[1], { n })
            local dtype = any(NUMBERS)
            return "index_add", { tensor(sizes, dtype), tensor({ n, sizes[2], sizes[3] }, dtype), ids },
                function(x, source, i) return x:index_add(0, i, source) end
        end,
        function()
            local x = tensor(shape(random(1, 4)), any(NUMBERS))
            local to = any(NUMBERS)
            return "to", { x }, function(t) return t:to(to):contiguous() end
        end,
    }

    local cases = {}
    local before = pg.get_default_device()
    pg.set_default_device(device)
    for k = 1, count do
        pg.manual_seed(seed + k)
        local name, inputs, call = any(makers)()
        local words = {}
        for i, x in ipairs(inputs) do words[i] = text(x) end
        cases[k] = {
            name = ("random %d of seed %d: %s(%s)"):format(k, seed, name, table.concat(words, ", ")),
            run = function() return call(unpack(inputs)) end,
        }
    end
    pg.set_default_device(before)
    return cases
end
