-- CUDA devices: copies, mixed devices, late errors, streams, events, pinned memory, memory, random numbers.
local pg = require "perigee"
local on_cuda = require "spec.support.on_cuda"
local shell = require "spec.build.shell"

local function refused(pattern, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok, "was not refused: " .. pattern)
    assert.is_truthy(tostring(message):find(pattern, 1, true), message)
end

local function same(expected, got)
    assert.same(expected:totable(), got:totable())
end

on_cuda("spec/engine/cuda_spec.lua", function()
    describe("CUDA devices", function()
        it("are counted and described", function()
            assert.is_true(pg.cuda.is_available())
            local n = pg.cuda.device_count()
            assert.is_true(n >= 1)
            assert.equal(0, pg.cuda.current_device())
            local p = pg.cuda.get_device_properties(0)
            assert.equal(p.name, pg.cuda.get_device_name("cuda:0"))
            assert.is_true(p.total_memory > 0 and p.multi_processor_count > 0 and p.major >= 8)
            assert.equal(p.major, (pg.cuda.get_device_capability()))
            local free, total = pg.cuda.mem_get_info()
            assert.is_true(free > 0 and free <= total)
            refused("there is no such CUDA device (devices here: cpu, cuda:0", pg.ones, 1, { device = "cuda:99" })
            refused("unknown device 'cuda:x'", pg.ones, 1, { device = "cuda:x" })
            refused("no such CUDA device", pg.cuda.set_device, n)
            pg.cuda.set_device(0)
            assert.equal(7, pg.cuda.device(0, function(a) return a + 1 end, 6))
        end)

        it("hold tensors of every dtype and stride, there and back", function()
            for _, name in ipairs { "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16",
                "float32", "float64" } do
                local x = pg.arange(24):to(pg[name]):reshape(2, 3, 4)
                for _, view in ipairs { x, x:transpose(0, 2), x[{ {}, { nil, nil, 2 } }], x:flip(1), x[{ 1, 2 }],
                    x[{ {}, { 1, 1 } }], pg.tensor(1, { dtype = pg[name] }) } do
                    local there = view:to("cuda")
                    assert.equal("cuda:0", there.device)
                    assert.equal(view.dtype, there.dtype)
                    same(view, there)
                    same(view, there:cpu())
                    same(view:to(pg.float64), there:to("cpu", pg.float64))
                end
                same(x:transpose(0, 1), x:cuda():transpose(0, 1))
            end
            local x = pg.arange(12):reshape(3, 4)
            local y = pg.zeros(4, 3, { device = "cuda", dtype = pg.int64 })
            y:t():copy_(x)
            same(x:t(), y)
            x:t():copy_(y * 2)
            same(y:cpu() * 2, x:t())
            -- more than the staging memory
            local big = pg.randn(3, 1000, 701)
            assert.is_true(big:equal(big:cuda():cpu()))
        end)

        it("are where set_default_device makes tensors", function()
            pg.set_default_device("cuda")
            assert.equal("cuda:0", pg.get_default_device())
            local made = { pg.zeros(2), pg.tensor { 1, 2 }, pg.arange(3), pg.randn(2), pg.full({ 2 }, 7), pg.eye(2),
                pg.randperm(4), pg.linspace(0, 1, 3), pg.int64 { 1 }, pg.nn.Linear(2, 2).weight }
            pg.set_default_device(nil)
            for k, t in ipairs(made) do assert.equal("cuda:0", t.device, k) end
            assert.equal("cpu", pg.zeros(2).device)
        end)

        it("do not mix in one op; the error names both", function()
            local x, y = pg.ones(2, { device = "cuda" }), pg.ones(2)
            refused("'input' is on cuda:0 and 'other' on cpu", function() return x + y end)
            refused("'input' is on cpu and 'other' on cuda:0", function() return y * x end)
            refused("'input' is on cpu and 'mat2' on cuda:0", pg.mm, pg.ones(2, 2), pg.ones(2, 2, { device = "cuda" }))
            refused("on cuda:0", pg.cat, { x, y })
            refused("on cuda:0", pg.matmul, x, pg.tensor(1))
            local m = pg.nn.Linear(2, 2):cuda()
            refused("'input' is on cpu and 'weight' on cuda:0", m, y)
        end)

        it("take 0-dim tensors of the cpu as numbers, with their gradients", function()
            local x = pg.tensor({ 1, 2, 3 }, { device = "cuda", requires_grad = true })
            local s = pg.tensor(2, { requires_grad = true })
            local y = x * s + s / x - (s - x)
            assert.equal("cuda:0", y.device)
            y:sum():backward()
            assert.equal("cpu", s.grad.device)
            assert.equal("cuda:0", x.grad.device)
            local hx, hs = pg.tensor({ 1, 2, 3 }, { requires_grad = true }), pg.tensor(2, { requires_grad = true })
            local hy = hx * hs + hs / hx - (hs - hx)
            hy:sum():backward()
            same(hy:detach(), y:detach())
            same(hx.grad, x.grad)
            same(hs.grad, s.grad)
            assert.equal(pg.float32, (x:detach() * pg.tensor(2, { dtype = pg.float64 })).dtype)
            assert.equal(pg.float32, (pg.tensor(2) * pg.ones(3, { dtype = pg.int64, device = "cuda" })).dtype)
            same(pg.tensor { 0.5, 0.25 }, 1 / pg.tensor({ 2, 4 }, { device = "cuda" }))
            refused("the one that is changed is on cpu and another on cuda:0", function()
                pg.tensor(1):add_(x:detach())
            end)
            local z = pg.zeros(2, { device = "cuda" })
            z:fill_(pg.tensor(3))
            z[1] = pg.tensor(4)
            same(pg.tensor { 3, 4 }, z)
        end)

        it("draw the numbers that the cpu draws", function()
            local function draws(device)
                pg.manual_seed(11)
                return { pg.randn(1001, { device = device }), pg.rand(7, 9, { device = device, dtype = pg.float64 }),
                    pg.randint(0, 1000, { 33 }, { device = device }), pg.randperm(50, { device = device }),
                    pg.empty(65, { device = device }):uniform_(-1, 3),
                    pg.randn(5, { device = device, dtype = pg.bfloat16 }) }
            end
            local here, there = draws("cpu"), draws("cuda")
            for k = 1, #here do assert.is_true(here[k]:equal(there[k]:cpu()), k) end
            pg.cuda.manual_seed(5)
            local state = pg.cuda.get_rng_state()
            local a = pg.rand(3, { device = "cuda" })
            assert.equal(5, pg.cuda.initial_seed())
            pg.cuda.set_rng_state(state)
            same(a, pg.rand(3, { device = "cuda" }))
            pg.manual_seed(5)
            same(a, pg.rand(3))
        end)
    end)

    describe("what kernels find wrong", function()
        local x
        before_each(function() x = pg.arange(10, { dtype = pg.float32, device = "cuda" }) end)

        it("is raised by the call that waits, with the op's name, once", function()
            local y = x:index_select(0, pg.int64({ 3, 12, 5 }, { device = "cuda" }))
            refused("index_select: index 12 is out of range for a dimension of size 10", pg.cuda.synchronize)
            pg.cuda.synchronize()
            assert.equal(45, x:sum():item())
            local bad = pg.nn.functional.embedding(pg.int64({ 0, -1 }, { device = "cuda" }), x:reshape(5, 2))
            refused("embedding: index -1 is out of range for a dimension of size 5", function() return bad:cpu() end)
            assert.equal(3, y[0]:item())
            y = pg.int64({ 7, 8 }, { device = "cuda" }):floor_divide(pg.int64({ 0, 2 }, { device = "cuda" }))
            refused("floor_divide: integer division by zero", function() return y[1]:item() end)
            assert.equal(4, y[1]:item())
            local e = pg.cuda.Event()
            y = x:gather(0, pg.int64({ 10 }, { device = "cuda" }))
            e:record()
            refused("gather: index 10 is out of range", e.synchronize, e)
            y = x:gather(0, pg.int64({ 11 }, { device = "cuda" }))
            refused("gather: index 11 is out of range", function() pg.cuda.current_stream():synchronize() end)
            assert.is_truthy(y)
        end)
    end)

    describe("streams and events", function()
        it("have a default, and another one inside cuda.stream", function()
            local main, side = pg.cuda.default_stream(), pg.cuda.Stream()
            assert.is_true(pg.cuda.current_stream() == main)
            assert.is_false(side == main)
            assert.equal("x", pg.cuda.stream(side, function(v)
                assert.is_true(pg.cuda.current_stream() == side)
                return v
            end, "x"))
            refused("oh", pg.cuda.stream, side, function() error("oh") end)
            assert.is_true(pg.cuda.current_stream() == main)
            assert.matches("device=cuda:0", tostring(pg.cuda.Stream { priority = -1 }))
            refused("expected a Stream", pg.cuda.stream, 3, print)
        end)

        it("are ordered by events, and by nothing else", function()
            local side = pg.cuda.Stream()
            for round = 1, 20 do
                local x = pg.full({ 1000 }, round, { device = "cuda" })
                side:wait_stream(pg.cuda.current_stream())
                local y = pg.cuda.stream(side, function()
                    local y = x
                    for _ = 1, 5 do y = y + 1 end
                    return y
                end)
                x:record_stream(side)
                x:free()
                -- what was given back while the other stream used it is not handed out too early
                local w = pg.full({ 1000 }, -1, { device = "cuda" })
                local event = side:record_event()
                event:wait()
                local z = y * 2
                y:record_stream(pg.cuda.current_stream())
                y:free()
                pg.cuda.stream(side, function() return pg.full({ 1000 }, -2, { device = "cuda" }) end)
                assert.equal((round + 5) * 2 * 1000, z:sum():item())
                assert.equal(-1000, w:sum():item())
            end
            side:synchronize()
            assert.is_true(side:query())
        end)

        it("tell the time between two events", function()
            local a, b = pg.cuda.Event { enable_timing = true }, pg.cuda.Event { enable_timing = true }
            refused("must be recorded", a.elapsed_time, a, b)
            a:record()
            local x = pg.randn(1000, { device = "cuda" })
            x = x + x
            b:record()
            b:synchronize()
            assert.is_true(a:query() and b:query())
            assert.is_true(a:elapsed_time(b) >= 0)
            local plain = pg.cuda.Event()
            plain:record()
            plain:synchronize()
            refused("enable_timing", a.elapsed_time, a, plain)
            assert.is_truthy(x)
        end)
    end)

    describe("pinned memory", function()
        it("is copied from and to when the stream comes to it", function()
            local x = pg.randn(100, 7)
            assert.is_false(x:is_pinned())
            local p = x:pin_memory()
            assert.is_true(p:is_pinned())
            assert.is_true(p:pin_memory():same_storage(p))
            assert.equal("cpu", p.device)
            local there = p:to("cuda", { non_blocking = true })
            p:free()
            pg.zeros(100, 7):pin_memory()
            same(x, there)
            local back = there:to("cpu", { non_blocking = true })
            assert.is_true(back:is_pinned())
            pg.cuda.synchronize()
            same(x, back)
            refused("only tensors on the cpu can be pinned", there.pin_memory, there)
            -- a pinned block is not given to others while a copy still reads it
            local sums = pg.zeros(30, { device = "cuda" })
            for k = 0, 29 do
                local q = pg.full({ 5000 }, k):pin_memory()
                local arrived = q:to("cuda", { non_blocking = true })
                q:free()
                sums[k] = arrived:sum()
            end
            same(pg.arange(30) * 5000.0, sums)
            same(x, x:pin_memory():cuda(0, { non_blocking = true }))
            same(x, x:cuda("cuda:0"))
            refused("unknown option", x.cuda, x, { blocking = true })
            local y = pg.empty(100, 7):pin_memory()
            y:copy_(there, true)
            pg.cuda.synchronize()
            same(x, y)
        end)
    end)

    describe("a data loader", function()
        it("gives pinned batches, and the same ones wherever tensors are made", function()
            local data = pg.data
            local x, y = pg.randn(10, 3), pg.arange(10)
            local loader = data.DataLoader(data.TensorDataset(x, y), { batch_size = 4, pin_memory = true })
            local n = 0
            for a, b in loader:iter() do
                assert.is_true(a:is_pinned() and b:is_pinned())
                local there = a:to("cuda", { non_blocking = true })
                same(x[{ { n, n + a:size(0) } }], there)
                n = n + a:size(0)
            end
            assert.equal(10, n)
            local function labels()
                local list = {}
                for _, b in data.DataLoader(data.TensorDataset(x, y), { shuffle = true, seed = 2 }):iter() do
                    list[#list + 1] = b:item()
                end
                return list
            end
            local here = labels()
            pg.set_default_device("cuda")
            local ok, there = pcall(labels)
            pg.set_default_device(nil)
            assert.is_true(ok, there)
            assert.same(here, there)
        end)
    end)

    describe("memory", function()
        it("is counted and cached", function()
            collectgarbage() collectgarbage()
            pg.cuda.empty_cache()
            local before = pg.cuda.memory_allocated()
            pg.cuda.reset_peak_memory_stats()
            local x = pg.empty(1024, 1024, { device = "cuda" })
            assert.equal(before + 4194304, pg.cuda.memory_allocated())
            x:free()
            assert.equal(before, pg.cuda.memory_allocated())
            assert.equal(before + 4194304, pg.cuda.max_memory_allocated())
            assert.is_true(pg.cuda.memory_reserved() >= 4194304)
            local hits = pg.memory_stats("cuda").cache_hits
            pg.empty(1024, 1024, { device = "cuda" }):free()
            assert.equal(hits + 1, pg.memory_stats("cuda").cache_hits)
            local reserved = pg.cuda.memory_reserved()
            pg.cuda.empty_cache()
            assert.is_true(pg.cuda.memory_reserved() <= reserved - 4194304)
            local stats = pg.cuda.memory_stats()
            assert.equal(before, stats["allocated_bytes.all.current"])
            assert.matches("Memory of cuda", pg.cuda.memory_summary())
        end)

        it("stays flat over ten thousand ops", function()
            local x = pg.ones(64, { device = "cuda" })
            for _ = 1, 200 do x = x * 1 end
            collectgarbage()
            pg.cuda.empty_cache()
            pg.scope(function()
                local y = x
                for _ = 1, 200 do y = y * 1 end
            end)
            local reserved = pg.cuda.memory_reserved()
            for _ = 1, 50 do
                pg.scope(function()
                    local y = x
                    for _ = 1, 200 do y = y * 1 end
                end)
            end
            assert.equal(reserved, pg.cuda.memory_reserved())
        end)

        it("that runs out is an error with figures, after collecting and emptying the cache", function()
            if not pg.cuda.is_emulated() then return pending("only the emulated device's memory can be made small") end
            local script = os.tmpname()
            shell.write(script, [[
                package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
                local pg = require "perigee"
                local function big() return pg.empty(40, 1024, 1024, { device = "cuda", dtype = pg.int8 }) end
                collectgarbage("stop")
                local a = big()
                a = big()                       -- 80 MiB of 100, half of it garbage
                a = big()                       -- collected, and the block used again
                print(pg.cuda.memory_stats().num_alloc_retries, pg.cuda.memory_reserved() / 2 ^ 20)
                a = nil
                local b = pg.empty(70, 1024, 1024, { device = "cuda", dtype = pg.int8 })   -- the cache has to go
                print(pg.cuda.memory_stats().num_alloc_retries, pg.cuda.memory_reserved() / 2 ^ 20)
                print(pcall(big))
                b:free()
                print(big():numel())
            ]])
            local output = shell.must(("PERIGEE_CUDA_MEMORY=100 %s %s"):format(shell.interpreter, script))
            os.remove(script)
            local lines = {}
            for line in output:gmatch("[^\n]+") do lines[#lines + 1] = line end
            assert.equal("0\t80", lines[1], output)
            assert.equal("1\t70", lines[2], output)
            assert.matches("empty: out of memory on cuda:0: 41943040 bytes %(40.0 MiB%) asked for, 70.0 MiB live in "
                .. "tensors, 0.0 MiB cached, %d+.%d MiB free on the device", lines[3])
            assert.equal("41943040", lines[4])
        end)
    end)
end)
