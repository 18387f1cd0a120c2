--- Every op, with its gradients, as a list of cases that a driver runs: under several numbers of threads, on two
--- devices.
---
--- every_op(device, options) makes the inputs on that device and gives the list: {name =, run =}, where run() gives
--- tensors, and the symbols of the rows for which there is no case. The same numbers on every device. Options: dtype:
--- that of floating inputs; spread: inputs whose elements lie apart; either leaves the large cases out.

local pg = require "perigee"
local core = require "perigee.ffi"
local wrapper = require "perigee.wrapper"

local F = pg.nn.functional

--- The file's chunk again, so that the tensors it makes are made on the default device as it is now.
local function fresh(path)
    return assert(loadfile(path))()
end

local function tensors_of(...)
    local list = {}
    for k = 1, select("#", ...) do
        local v = (select(k, ...))
        if pg.is_tensor(v) then
            list[#list + 1] = v
        elseif type(v) == "table" then
            for _, t in ipairs(v) do list[#list + 1] = t end
        end
    end
    return list
end

--- The results of f() and, where they have one, the gradients of `inputs`.
local function with_gradients(inputs, f)
    local results = tensors_of(f())
    local outputs, seeds, wanted = {}, {}, {}
    for _, t in ipairs(results) do
        if t.requires_grad then
            outputs[#outputs + 1] = t
            seeds[#seeds + 1] = t:detach() * 0.5 + 1
        end
    end
    for _, t in ipairs(inputs) do
        if pg.is_tensor(t) and t.requires_grad and t.is_leaf then wanted[#wanted + 1] = t end
    end
    if #outputs > 0 and #wanted > 0 then
        for _, g in ipairs { pg.autograd.grad(outputs, wanted, { grad_outputs = seeds, allow_unused = true }) } do
            results[#results + 1] = g
        end
    end
    return unpack(results)
end

--- The same values, as options ask.
local function varied(x, options)
    if not pg.is_tensor(x) then return x end
    local y = x:detach()
    if options.dtype and y:is_floating_point() then
        if not options.dtype.is_floating_point then y = y * 8 end
        y = y:to(options.dtype)
    end
    if options.spread and y:dim() > 0 then
        local wide = pg.stack({ y, y }, -1)
        y = wide:select(-1, 0)
    end
    if x.requires_grad and y:is_floating_point() then y:requires_grad_() end
    return y
end

local function varied_list(list, options)
    local result = {}
    for k = 1, #list do result[k] = varied(list[k], options) end
    return result
end

local function build(options)
    local samples = fresh "spec/support/samples.lua"
    local cases, missing = {}, {}

    local function case(name, run)
        cases[#cases + 1] = { name = name, run = run }
    end

    -- ---- every row of the op table ----

    local ints = pg.int64 { { 5, 6, 7 }, { 0, -1, 12 } }
    local x34 = varied(samples.real(3, 4):detach(), options)
    local x43 = varied(samples.strided(4, 3):detach(), options)

    -- Rows that have no sample because they have no gradient.
    local calls = {
        pg_full = function(op) return op({ 3, 4 }, 2.5) end,
        pg_full_like = function(op) return op(x43, 2.5) end,
        pg_new_full = function(op) return op(x43, { 5 }, 2.5) end,
        pg_arange = function(op) return op(11) end,
        pg_linspace = function(op) return op(0, 1, 11) end,
        pg_eye = function(op) return op(4, 5) end,
        pg_randint = function(op) return op(0, 100, { 7, 3 }) end,
        pg_randint_like = function(op) return op(x43, 0, 100) end,
        pg_randperm = function(op) return op(29) end,
        pg_bernoulli = function(op) return op(pg.full({ 4, 5 }, 0.4)) end,
        pg_multinomial = function(op) return op(pg.ones(3, 8), 5) end,
        pg_view_dtype = function(op) return op(x34, pg.int64) end,
        pg_one_hot = function(op) return op(pg.int64 { 0, 2, 1, 2 }, 4) end,
        pg_nonzero = function(op) return op(x34 * pg.tensor({ 0, 1, 0, 1 })) end,
        pg_sgd_step_ = function(op)
            local p, g, m = x34 * 1, x34 * 2, x34 * 3
            op(pg.tensor({ 0.1, 0.9, 0, 0.01, 0, 0, 0 }, { dtype = pg.float64 }), { p }, { g }, { m })
            return p, m
        end,
        pg_adam_step_ = function(op)
            local p, g, m, v = x34 * 1, x34 * 2, x34 * 3, x34 * x34
            local hyper = pg.tensor({ 0.1, 0.9, 0.99, 1e-8, 0.01, 1, 3, 0, 0 }, { dtype = pg.float64 })
            op(hyper, { p }, { g }, { m }, { v })
            return p, m, v
        end,
        pg_clip_grad_norm_ = function(op)
            local g, h = x34 * 2, x43 * 3
            return op({ g, h }, 0.5), g, h
        end,
        pg_unscale_ = function(op)
            local g, h, found = x34 * 2, x43 * pg.inf, pg.zeros({}, { dtype = pg.float32 })
            op(found, { g, h }, pg.full({}, 0.25, { dtype = pg.float32 }))
            return found, g, h
        end,
    }

    -- What these hold is whatever the memory held.
    local undefined = { pg_empty = true, pg_empty_like = true, pg_new_empty = true }

    --- Tensors for the tensor parameters of a row and a plain value for each other one without a default.
    local function generic(row)
        local arguments = {}
        for _, p in ipairs(row.params) do
            if p.option or (p.has_default or p.optional) then break end
            local kind = p.kind
            if kind == "tensor" or kind == "tensor_number" then
                arguments[#arguments + 1] = row.short:find("bitwise", 1, true) and ints or x34
            elseif kind == "ints" then
                arguments[#arguments + 1] = 7
            elseif kind == "float" then
                arguments[#arguments + 1] = 0.5
            elseif kind == "int" or kind == "number" then
                arguments[#arguments + 1] = 1
            else
                return nil
            end
        end
        return function(op)
            local own = { unpack(arguments) }
            if row.returns_self then own[1] = own[1]:clone() end
            return op(unpack(own))
        end
    end

    local by_symbol = {}
    for _, row in ipairs(core.rows) do by_symbol[row.symbol] = by_symbol[row.symbol] or row end

    -- In-place twins on the samples of what they are twins of, where the result fits.
    local function twins(row, op, list)
        for k, sample in ipairs(list) do
            local base = row.attrs.inplace_of
            local inputs = {}
            for i, x in ipairs(varied_list(sample, options)) do inputs[i] = pg.is_tensor(x) and x:detach() or x end
            local function apply(f)
                local own = { unpack(inputs) }
                own[1] = own[1]:clone()
                if sample.call then return (sample.call(f, unpack(own))) end
                return (f(unpack(own)))
            end
            local _, result = pcall(apply, wrapper.of_rows { by_symbol[base] })
            if pg.is_tensor(result) and result.shape == inputs[1].shape and result.dtype == inputs[1].dtype then
                case(("%s, sample %d"):format(row.signature, k), function() return apply(op) end)
            end
        end
    end

    for _, row in ipairs(core.rows) do
        if not row.alias and not undefined[row.symbol] then
            local op = wrapper.of_rows { row }
            local list = samples[row.symbol]
            local call = not list and (calls[row.symbol] or generic(row))
            if not list and row.attrs.inplace_of and samples[row.attrs.inplace_of] then
                twins(row, op, samples[row.attrs.inplace_of])
            elseif list then
                for k, sample in ipairs(list) do
                    local inputs = varied_list(sample, options)
                    case(("%s, sample %d"):format(row.signature, k), function()
                        return with_gradients(inputs, function()
                            if sample.call then return sample.call(op, unpack(inputs)) end
                            return op(unpack(inputs))
                        end)
                    end)
                end
            elseif call then
                case(row.signature, function()
                    local results = { call(op) }
                    for k, v in ipairs(results) do
                        if type(v) == "number" or type(v) == "boolean" then results[k] = pg.tensor(v) end
                    end
                    return unpack(results)
                end)
            else
                missing[#missing + 1] = row.symbol
            end
        end
    end

    if options.dtype or options.spread then return cases, missing end

    -- ---- large ones, where kernels work in blocks ----

    pg.manual_seed(1)
    local function leaf(...)
        return pg.randn(...):requires_grad_()
    end

    local wide, tall, cube = leaf(61, 2053), leaf(3001, 37), leaf(17, 129, 65)
    local long = leaf(100003)

    for _, name in ipairs { "sum", "mean", "prod", "var", "norm", "logsumexp", "amax", "argmax", "cumsum", "softmax",
        "log_softmax", "sort" } do
        for label, x in pairs { wide = wide, tall = tall, cube = cube, transposed = wide:t(), long = long } do
            for dim = 0, x:dim() - 1 do
                if name == "norm" then
                    case(("norm of %s, %d"):format(label, dim), function()
                        return with_gradients({ wide, tall, cube, long }, function() return x:norm(2, dim) end)
                    end)
                else
                    case(("%s of %s, %d"):format(name, label, dim), function()
                        return with_gradients({ wide, tall, cube, long }, function() return x[name](x, dim) end)
                    end)
                end
            end
            if name == "sum" or name == "mean" or name == "var" or name == "norm" then
                case(name .. " of all of " .. label, function()
                    return with_gradients({ wide, tall, cube, long }, function() return x[name](x) end)
                end)
            end
        end
    end

    for _, shape in ipairs { { 64, 784, 256 }, { 768, 128, 128 }, { 1, 300, 500 }, { 500, 300, 1 }, { 7, 5000, 3 },
        { 333, 77, 1025 }, { 1600, 200, 3100 } } do
        local m, k, n = unpack(shape)
        local a, b, c = leaf(m, k), leaf(k, n), leaf(n)
        local name = ("%d x %d x %d"):format(m, k, n)
        case("matmul " .. name, function()
            return with_gradients({ a, b }, function() return a:matmul(b) end)
        end)
        case("linear " .. name, function()
            return with_gradients({ a, b, c }, function() return F.linear(a, b:t(), c) end)
        end)
    end
    local qa, qb = leaf(5, 40, 70), leaf(5, 70, 30)
    case("bmm", function() return with_gradients({ qa, qb }, function() return qa:bmm(qb) end) end)

    local norm_w, norm_b = leaf(2053), leaf(2053)
    case("layer_norm", function()
        return with_gradients({ wide, norm_w, norm_b }, function()
            return F.layer_norm(wide, { 2053 }, norm_w, norm_b)
        end)
    end)
    local tall_w, tall_b = leaf(37), leaf(37)
    case("layer_norm of many rows", function()
        return with_gradients({ tall, tall_w, tall_b }, function()
            return F.layer_norm(tall, { 37 }, tall_w, tall_b)
        end)
    end)
    local classes = pg.randint(0, 37, { 3001 })
    case("cross_entropy", function()
        return with_gradients({ tall }, function() return F.cross_entropy(tall, classes) end)
    end)
    local head = leaf(203, 37)
    local tokens = pg.randint(0, 203, { 3001 })
    case("linear_cross_entropy", function()
        return with_gradients({ tall, head }, function() return F.linear_cross_entropy(tall, head, tokens) end)
    end)
    local table_w, ids = leaf(50, 64), pg.randint(0, 50, { 40, 100 })
    case("embedding", function()
        return with_gradients({ table_w }, function() return F.embedding(ids, table_w) end)
    end)
    local rows, source = pg.randint(0, 61, { 3000 }), leaf(3000, 2053)
    case("index_add", function()
        return with_gradients({ wide, source }, function() return wide:index_add(0, rows, source) end)
    end)
    local places = pg.randint(0, 2053, { 61, 4000 })
    local scattered = leaf(61, 4000)
    case("scatter_add", function()
        return with_gradients({ wide, scattered }, function() return wide:scatter_add(1, places, scattered) end)
    end)
    for _, causal in ipairs { true, false } do
        for _, heads in ipairs { 1, 12 } do
            local q, k, v = leaf(1, heads, 130, 32), leaf(1, heads, 130, 32), leaf(1, heads, 130, 32)
            case(("attention, %d heads, causal %s"):format(heads, tostring(causal)), function()
                return with_gradients({ q, k, v }, function()
                    return F.scaled_dot_product_attention(q, k, v, nil, 0.1, { is_causal = causal })
                end)
            end)
        end
    end
    case("dropout", function() return with_gradients({ wide }, function() return F.dropout(wide, 0.3) end) end)
    for _, name in ipairs { "randn", "rand" } do
        case(name, function() return pg[name](1001, 333) end)
    end
    case("randperm", function() return pg.randperm(100003) end)
    case("broadcast", function()
        return with_gradients({ cube, norm_w }, function() return cube * cube[{ {}, {}, { 0, 1 } }] + cube[0] end)
    end)
    case("transposed copy", function() return wide:t():contiguous() end)

    -- ---- a training run ----

    case("a training run of a GPT", function()
        local gpt = require "perigee.models.gpt"
        local model = gpt.GPT { vocab_size = 31, block_size = 16, n_layer = 2, n_head = 2, n_embd = 32, dropout = 0.1 }
        local optimizer = model:configure_optimizer { lr = 1e-2 }
        local losses = {}
        for step = 1, 5 do
            local batch = pg.randint(0, 31, { 6, 16 })
            local _, loss = model(batch, batch:roll(-1, 1))
            optimizer:zero_grad()
            loss:backward()
            pg.nn.utils.clip_grad_norm_(model:parameters(), 1)
            optimizer:step()
            losses[step] = loss:detach()
        end
        local results = { pg.stack(losses) }
        for _, parameter in ipairs(model:parameters()) do results[#results + 1] = parameter end
        return unpack(results)
    end)

    return cases, missing
end

---@param device string
---@param options? {dtype: any, spread: boolean}
---@return table cases, string[] missing
return function(device, options)
    local before = pg.get_default_device()
    pg.set_default_device(device)
    local cases, missing = build(options or {})
    local function settled(ok, ...)
        pg.set_default_device(before)
        if not ok then error((...), 0) end
        return ...
    end
    for _, case in ipairs(cases) do
        local run = case.run
        function case.run()
            pg.set_default_device(device)
            pg.manual_seed(20)
            return settled(pcall(run))
        end
    end
    pg.set_default_device(before)
    return cases, missing
end
