-- The allocator, the debt counter, scopes, and what happens when memory runs out.

local ffi = require "ffi"
local pg = require "perigee"
local shell = require "spec.build.shell"

local function settle()
    collectgarbage("collect")
    collectgarbage("collect")
end

local function allocated()
    settle()
    return pg.memory_allocated()
end

describe("the allocator", function()
    it("counts what is live, its peak, and what it reserved", function()
        local before = allocated()
        pg.reset_peak_memory_stats()
        local x = pg.zeros(1000, 1000)
        local one = pg.memory_allocated() - before
        assert.is_true(one >= 4e6 and one <= 4e6 * 1.13, tostring(one))
        local y = x * 2
        assert.equal(2 * one, pg.memory_allocated() - before)
        y:free()
        assert.equal(one, pg.memory_allocated() - before)
        x:free()
        assert.equal(before, pg.memory_allocated())
        assert.equal(2 * one, pg.max_memory_allocated() - before)
        pg.reset_peak_memory_stats()
        assert.equal(before, pg.max_memory_allocated())
        assert.is_true(pg.memory_reserved() >= pg.memory_allocated())
    end)

    it("gives freed blocks out again instead of asking the system", function()
        local function step()
            for _, n in ipairs { 1, 7, 100, 3000, 70000, 500000 } do
                local x = pg.ones(n)
                x:free()
            end
        end
        step()
        local before = pg.memory_stats()
        for _ = 1, 200 do step() end
        local after = pg.memory_stats()
        assert.equal(before.system_allocations, after.system_allocations)
        assert.equal(1200, after.allocations - before.allocations)
        assert.equal(1200, after.cache_hits - before.cache_hits)
        assert.equal(before.allocated, after.allocated)
        assert.equal(before.reserved, after.reserved)
    end)

    it("gives the cache back to the system when asked", function()
        local x = pg.ones(3000000)
        x:free()
        local before = pg.memory_reserved()
        pg.empty_cache()
        assert.is_true(before - pg.memory_reserved() >= 12e6)
        assert.is_true(pg.memory_reserved() >= pg.memory_allocated())
        assert.equal(6, pg.ones(2, 3):sum():item())
    end)

    it("aligns everything to 64 bytes, empty tensors included", function()
        for n = 0, 300, 13 do
            local x = pg.zeros(n)
            assert.equal(0, tonumber(ffi.cast("uintptr_t", x:data_ptr()) % 64), "size " .. n)
        end
    end)

    it("refuses what cannot be met, says how much that was, and goes on", function()
        local ok, message = pcall(pg.zeros, 2 ^ 45)
        assert.is_false(ok)
        assert.matches("zeros: out of memory on cpu: 140737488355328 bytes", message, 1, true)
        assert.matches("live in tensors, .* cached, .* free on the device", message)
        ok, message = pcall(pg.zeros, 2 ^ 32, 2 ^ 32)
        assert.is_false(ok)
        assert.matches("more than memory can address", message, 1, true)
        assert.equal(3, pg.ones(3):sum():item())
    end)

    it("is not fooled by garbage that the collector does not see", function()
        settle()
        pg.reset_peak_memory_stats()
        local before = pg.memory_allocated()
        local x = pg.ones(4000000)
        for _ = 1, 200 do x = x * 1 end -- 3.2 GB in all
        assert.is_true(pg.max_memory_allocated() - before < 2e9, tostring(pg.max_memory_allocated()))
        assert.equal(4000000, x:sum():item())
    end)

    it("leaves no tensor, storage or node behind", function()
        local w = pg.randn(8, 8, { requires_grad = true })
        local function step()
            local x = pg.randn(4, 8)
            local y = (x:matmul(w) * 2):view(2, 16):t():contiguous()
            local parts = y:chunk(4)
            pg.cat(parts, 1)[pg.int64 { 0, 2 }]:sum():backward()
            w.grad = nil
        end
        step()
        settle()
        local before = pg.memory_stats()
        for _ = 1, 100 do step() end
        settle()
        local after = pg.memory_stats()
        for _, key in ipairs { "live_tensors", "live_storages", "live_nodes", "allocated" } do
            assert.equal(before[key], after[key], key)
        end
    end)
end)

describe("a scope", function()
    local function is_freed(t)
        local ok, message = pcall(function() return t + 1 end)
        return not ok and message:find("freed by the end of a scope", 1, true) ~= nil
    end

    it("frees what was made inside at once, keeps what is returned", function()
        local before = allocated()
        local inner
        local a, list = pg.scope(function()
            inner = pg.ones(100000)
            local kept = inner * 2
            return kept, { deep = { pg.ones(3) } }
        end)
        assert.equal(200000, a:sum():item())
        assert.equal(3, list.deep[1]:sum():item())
        assert.is_true(pg.memory_allocated() - before < 2 * 400000)
        assert.is_true(is_freed(inner))
        assert.has_error(function() return inner:item() end)
        assert.has_error(function() return inner.shape end)
    end)

    it("does not hold back what dies earlier", function()
        pg.scope(function()
            local before = pg.memory_allocated()
            for _ = 1, 20 do
                local x = pg.ones(1000000)
                x:free()
            end
            assert.equal(before, pg.memory_allocated())
        end)
    end)

    it("frees a whole graph that nobody kept", function()
        local w = pg.randn(50, 50, { requires_grad = true })
        local before, stats = allocated(), pg.memory_stats()
        pg.scope(function()
            local y = w
            for _ = 1, 20 do y = (y:matmul(w) * 0.1):t():reshape(-1):view(50, 50) end
            return nil
        end)
        assert.equal(before, pg.memory_allocated())
        assert.equal(stats.live_nodes, pg.memory_stats().live_nodes)
    end)

    it("leaves alone what a kept tensor's history needs", function()
        local w = pg.randn(5, 5, { requires_grad = true })
        local x = pg.randn(5, 5)
        local function loss()
            local h = x:matmul(w)
            h = h * h
            return (h:view(25) * 3):sum()
        end
        loss():backward()
        local expected = w.grad:clone()
        w.grad = nil
        local l = pg.scope(loss)
        settle()
        l:backward()
        assert.same(expected:totable(), w.grad:totable())
    end)

    it("leaves alone what a kept view looks into, and leaves that a kept history ends in", function()
        local v = pg.scope(function()
            local base = pg.ones(4, 4)
            return base[1]
        end)
        settle()
        assert.equal(4, v:sum():item())
        v:add_(1)
        local l = pg.scope(function()
            local leaf = pg.ones(3, { requires_grad = true })
            return (leaf * 2):sum()
        end)
        settle()
        l:backward()
    end)

    it("leaves gradients alone", function()
        local w = pg.ones(3, { requires_grad = true })
        pg.scope(function() (w * 2):sum():backward() end)
        assert.same({ 2, 2, 2 }, w.grad:totable())
        pg.scope(function() (w * 2):sum():backward() end)
        assert.same({ 4, 4, 4 }, w.grad:totable())
        pg.scope(function()
            local g = pg.ones(3)
            w.grad = g
        end)
        settle()
        assert.same({ 1, 1, 1 }, w.grad:totable())
    end)

    it("nests: what an inner one returns belongs to the outer", function()
        local first, second
        local out = pg.scope(function()
            first = pg.scope(function() return pg.ones(10) end)
            assert.equal(10, first:sum():item())
            second = pg.ones(2)
            pg.scope(function() pg.scope.keep(second) end)
            return first + 1
        end)
        assert.equal(20, out:sum():item())
        assert.is_true(is_freed(first))
        assert.is_true(is_freed(second))
    end)

    it("ends when the function raises, and hands the error on", function()
        local inside
        local ok, message = pcall(pg.scope, function()
            inside = pg.ones(5)
            error("mine")
        end)
        assert.is_false(ok)
        assert.matches("mine", message)
        assert.is_true(is_freed(inside))
        local after = pg.ones(2)
        settle()
        assert.equal(2, after:sum():item())
    end)

    it("is an error where a coroutine leaves it out of order, and nothing is lost", function()
        local kept
        local co = coroutine.create(function()
            pg.scope(function()
                kept = pg.ones(3)
                coroutine.yield()
            end)
        end)
        assert(coroutine.resume(co))
        local token = pg.scope.enter()
        local ok, message = coroutine.resume(co)
        assert.is_false(ok)
        assert.matches("coroutine", message)
        assert.equal(3, kept:sum():item())
        pg.scope.leave(token)
        assert.has_error(function() pg.scope.leave(token) end)
    end)
end)

describe("running out of memory", function()
    local folder, script
    setup(function()
        folder = shell.temporary_folder()
        script = folder .. "/small.lua"
        shell.write(script, [[
            package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
            local pg = require "perigee"
            local ok, message = pcall(function()
                pg.manual_seed(1)
                local w = pg.randn(3, 3, {requires_grad = true})
                local x = pg.ones(3, 3)
                for _ = 1, 2 do
                    pg.scope(function()
                        local all = pg.stack((x:matmul(w) + x):mul(2):unbind(0), 1):clone()
                        all[0] = 5
                        all[pg.int64{1, 2}] = pg.ones(2, 3)
                        local l = (all:t()[pg.int64{0, 1, 0}] * all:sum(1)):cumsum(0):max(1):mean()
                        l:backward()
                    end)
                    pg.no_grad(function() w:add_(w.grad, {alpha = -0.1}) end)
                    w.grad = nil
                end
                pg.safetensors.save(arg[1], {w = w})
                pg.safetensors.load(arg[1])
            end)
            print(ok and "done" or "refused: " .. tostring(message))
            os.exit(0, true)
        ]])
    end)
    teardown(function() shell.must("rm -rf " .. shell.quote(folder)) end)

    local function run(plan)
        return shell.run(("PERIGEE_FAIL_ALLOCATION=%s %s %s %s"):format(plan, shell.quote(shell.build .. "/perigee"),
            shell.quote(script), shell.quote(folder .. "/w")))
    end

    it("anywhere is an error, never a crash", function()
        local status, output = run("0")
        assert.equal(0, status, output)
        assert.equal("done", output:match("[^\n]+"), output)
        local n, runs = 1, 0
        repeat
            status, output = run(n .. "+")
            assert.equal(0, status, ("allocation %d and all after it: %s"):format(n, output))
            local word = output:match("[^\n]+")
            local done = word == "done"
            assert.is_true(done or word:find("refused: .*out of memory") ~= nil, output)
            runs = runs + 1
            n = n < 15 and n + 1 or math.floor(n * 1.13) + 1
        until done
        assert.is_true(runs > 20, "the script allocates too little to show anything")
    end)

    it("once is survived or refused", function()
        for n = 3, 120, 9 do
            local status, output = run(n)
            assert.equal(0, status, ("allocation %d: %s"):format(n, output))
            local word = output:match("[^\n]+")
            assert.is_true(word == "done" or word:find("refused: .*out of memory") ~= nil, output)
        end
    end)
end)
