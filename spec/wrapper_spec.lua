-- How arguments reach ops: options, lists, overloads, scratch, and that hot paths compile.

local pg = require "perigee"
local optable = require "perigee.optable"
local wrapper = require "perigee.wrapper"

local function refuses(f, message)
    local ok, err = pcall(f)
    assert.is_false(ok, "expected an error with: " .. message)
    assert.is_truthy(tostring(err):find(message, 1, true), "expected '" .. message .. "', got: " .. tostring(err))
end

local x = pg.tensor({ { 1, 2, 3 }, { 4, 5, 6 } })

describe("options", function()
    it("may name what has a place", function()
        assert.are.same({ 6, 15 }, x:sum({ dim = 1 }):totable())
        assert.are.same({ { 6 }, { 15 } }, x:sum(1, { keepdim = true }):totable())
        assert.are.same({ { 6 }, { 15 } }, pg.sum({ input = x, dim = { 1 }, keepdim = true }):totable())
        assert.are.same({ 3, 4, 5 }, (x[0]:add(1, { alpha = 2 })):totable())
        assert.are.same({ 3, 2 }, { unpack(x:reshape({ shape = { 3, 2 } }).shape) })
    end)

    it("are checked", function()
        refuses(function() x:sum(1, { keepdims = true }) end,
            "sum: unknown option 'keepdims' (known: dim, dtype, input, keepdim, out); did you mean 'keepdim'?")
        refuses(function() x:sum(1, { dim = 1 }) end, "sum: dim is given twice")
        refuses(function() x:sum(1, true, { keepdim = true }) end, "sum: keepdim is given twice")
        refuses(function() x:sum(1, true, {}, 5) end, "sum: too many arguments")
        refuses(function() x:sum(1, true, 5) end, "sum: takes 3 arguments and a table of options, got the number 5")
        refuses(function() x:sum(1, { keepdim = true, 5 }) end, "sum")
        refuses(function() x:add(1, { alpha = "x" }) end, "add: alpha: expected a number, got the string 'x'")
    end)

    it("take out=", function()
        local out = pg.tensor({ 0, 0 })
        assert.is_true(pg.add(pg.tensor({ 1, 2 }), 1, { out = out }) == out)
        assert.are.same({ 2, 3 }, out:totable())
        refuses(function() pg.add(x, 1, { out = 5 }) end, "add: out: expected a Tensor")
        local w = pg.tensor({ 1, 2 }, { requires_grad = true })
        refuses(function() pg.add(w, 1, { out = out }) end, "add")
    end)
end)

describe("lists of integers", function()
    it("are checked", function()
        refuses(function() x:sum({ 0.5 }) end, "sum: dim: expected integers, got 0.5 at [1]")
        refuses(function() x:sum({ 0, "1" }) end, "sum: dim: expected integers, got the string '1' at [2]")
        refuses(function() x:sum({ 0, nil, 1 }) end, "hole")
        refuses(function() x:sum({ nil, 1 }) end, "hole")
        refuses(function() x:sum(0 / 0) end, "sum: dim: expected an integer")
        refuses(function() x:sum(math.huge) end, "sum: dim: expected an integer")
        refuses(function() x:reshape(3, nil, 2) end, "nil among the integers")
        refuses(function() x:reshape(3, "2") end, "reshape: shape: expected an integer")
        refuses(function() x:reshape({ 3, 2 }, 2) end, "reshape")
        refuses(function() x:reshape(io.stdout) end, "reshape: shape")
    end)

    it("may be numbers, int64 cdata, and longer than the scratch", function()
        assert.are.same({ 3, 2 }, { unpack(x:reshape(3LL, 2LL).shape) })
        assert.are.same({ 3, 2 }, { unpack(x:reshape({ 3LL, 2 }).shape) })
        assert.are.same({ 1, 1, 1, 1, 1, 1, 6 }, { unpack(x:reshape({ 1, 1, 1, 1, 1, 1, 6 }).shape) })
        local sections, many = {}, {}
        for k = 1, 100 do
            sections[k] = 1
            many[k] = k
        end
        assert.are.equal(100, #pg.tensor(many):split(sections))
        refuses(function() x:reshape(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6) end, "reshape")
    end)
end)

describe("lists of tensors", function()
    it("are checked and may be long", function()
        refuses(function() pg.cat({ x, 1 }) end, "cat: tensors: expected Tensors, got the number 1 at [2]")
        refuses(function() pg.cat(x) end, "cat: tensors: expected a list of Tensors, got a Tensor")
        refuses(function() pg.cat({ x, nil, x }) end, "hole")
        local many = {}
        for k = 1, 1000 do many[k] = pg.tensor({ k }) end
        assert.are.equal(500500, pg.cat(many):sum():item())
    end)
end)

describe("overloads", function()
    local marked = "/* ==== the op table ==== */\n"
    local calls = {}

    -- Rows with real symbols, so that the wrappers compile; what they would call is not reached.
    local function pick(text, ...)
        local rows = optable.parse(marked .. text, "test.h")
        local f = wrapper.of_rows(rows)
        local ok, err = pcall(f, ...)
        calls[#calls + 1] = ok
        return tostring(err)
    end

    it("say which forms there are where none fits", function()
        local err = pick([[
/* f(input: Tensor) -> Tensor   [] */
int pg_clone(pg_tensor *out, const pg_tensor *input);
/* f(input: Tensor, dim: int) -> Tensor   [] */
int pg_unsqueeze(pg_tensor *out, const pg_tensor *input, int64_t dim);]], x, "a string")
        assert.is_truthy(err:find("f: no form takes (a Tensor, the string 'a string')", 1, true))
        assert.is_truthy(err:find("f(input: Tensor, dim: int) -> Tensor", 1, true))
    end)

    it("go by the class of an argument", function()
        assert.are.equal(pg.int32, x:view(pg.int32).dtype)
        assert.are.same({ 6 }, { unpack(x:view(6).shape) })
        assert.are.same({ 6 }, { unpack(x:view({ 6 }).shape) })
        assert.are.same({ 6 }, { unpack(x:view({ shape = { 6 } }).shape) })
        assert.are.equal(pg.int32, x:view({ dtype = pg.int32 }).dtype)
        refuses(function() x:view("int32") end, "view: no form takes (a Tensor, the string 'int32')")
    end)

    it("tell a number from a list of one", function()
        local y = pg.zeros(10)
        assert.are.equal(2, #y:split(5))
        assert.are.equal(2, #y:split({ 3, 7 }))
        assert.are.equal(10, #y:split({ split_size = 1 }))
        refuses(function() y:split({ 5 }) end, "split: sections [5] must sum to the size 10")
    end)

    it("go by options too", function()
        local text = [[
/* g(input: Tensor) -> Tensor   [] */
int pg_clone(pg_tensor *out, const pg_tensor *input);
/* g(input: Tensor, dim: int) -> Tensor   [] */
int pg_unsqueeze(pg_tensor *out, const pg_tensor *input, int64_t dim);]]
        local g = wrapper.of_rows(optable.parse(marked .. text, "test.h"))
        assert.are.equal(2, g(x):dim())
        assert.are.equal(3, g(x, 0):dim())
        assert.are.equal(3, g(x, { dim = 0 }):dim())
        refuses(function() g(x, { dims = 0 }) end, "no form takes")
    end)
end)

describe("wrappers", function()
    it("keep their scratch while a hook runs ops", function()
        local depth = 0
        local function hook()
            if depth > 0 then return end
            depth = depth + 1
            pg._protect(function()
                local y = x:reshape(6, 1):sum({ 0 }):add(5):reshape(1, 1)
                assert(y:numel() == 1)
                pg.no_grad(function()
                    return y:item(), y:totable(), pg.scope(function() return y + 1 end)
                end)
            end)
            depth = depth - 1
        end
        local right = true
        jit.off(true, true)
        debug.sethook(hook, "", 7)
        for _ = 1, 200 do
            local y = x:reshape(3, 2):add(2)
            right = right and y:size(0) == 3 and y[2][1]:item() == 8
            pg.no_grad(function()
                right = right and pg.scope(function() return y:totable()[3][2] end) == 8
            end)
        end
        debug.sethook()
        jit.on(true, true)
        assert.is_true(right)
    end)

    it("compile: no trace that touches them is given up", function()
        local aborted = {}
        local function watch(what, _, func, _, code, detail)
            -- Code 0: a finalizer ran while the trace was recorded. That one is tried again.
            if what == "abort" and code ~= 0 then
                local info = debug.getinfo(func, "S")
                if info and (info.source:find("=perigee:", 1, true) or info.source:find("lua/perigee/", 1, true)) then
                    aborted[#aborted + 1] = ("%s:%s code %s %s"):format(info.source, info.linedefined, tostring(code),
                        tostring(detail))
                end
            end
        end
        local a, b = pg.tensor({ 1, 2 }), pg.tensor({ 3, 4 })
        local w = pg.tensor({ 1, 2 }, { requires_grad = true })
        local sum = 0
        local function loop(n)
            for _ = 1, n do
                local c = a + b
                c = c * 2
                c = w + c
                c = c:reshape(2, 1)
                c = c:sum(1)
                c = c[0]
                sum = sum + c.ndim
            end
        end
        loop(1)         -- makes the wrappers
        jit.flush()
        jit.attach(watch, "trace")
        for _ = 1, 10 do loop(200) end
        jit.attach(watch)
        assert.are.same({}, aborted)
    end)
end)
