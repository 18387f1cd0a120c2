-- CUDA devices that are several, fail, are lost, or are not there: each in a process of its own.
local shell = require "spec.build.shell"

local function run(environment, code)
    local text = 'package.path="./lua/?.lua;./lua/?/init.lua;"..package.path; local pg=require "perigee";' .. code
    return shell.must(("%s luajit -e %s"):format(environment, shell.quote(text)))
end

describe("emulated CUDA devices", function()
    it("may be several", function()
        local output = run("PERIGEE_CUDA=emulated PERIGEE_CUDA_DEVICES=2", [[
            print(pg.cuda.device_count(), pg.get_default_device())
            local x, y = pg.ones(3, {device = "cuda:1"}), pg.ones(3, {device = "cuda:0"})
            print(x.device, y.device, (x + x).device)
            print(pcall(pg.add, x, y))
            print((x:to("cuda:0") + y):sum():item(), x:to("cpu").device)
            pg.cuda.set_device(1)
            print(pg.zeros(1, {device = "cuda"}).device, pg.cuda.current_device(), pg.cuda.current_stream().device)
            print(pg.cuda.device(0, function() return pg.zeros(1, {device = "cuda"}).device end),
                pg.cuda.current_device())
            pg.cuda.manual_seed(1) pg.cuda.manual_seed(2)
            print(pg.cuda.initial_seed(), pg.cuda.memory_allocated(1) > 0)
            local w = pg.nn.Linear(2, 2):cuda()
            local id = w.weight.id
            print(w.weight.device, w:to("cuda").weight.id == id, w:to("cuda:0").weight.id == id)
            local e = pg.cuda.Event({device = 0})
            print(pcall(e.record, e))
            print(pcall(pg.cuda.set_device, 2))
        ]])
        assert.equal(table.concat({
            "2\tcpu", "cuda:1\tcuda:0\tcuda:1",
            "false\tadd: expected all tensors on one device, but 'input' is on cuda:1 and 'other' on cuda:0",
            "6\tcpu", "cuda:1\t1\tcuda:1", "cuda:0\t1", "2\ttrue", "cuda:1\ttrue\tfalse",
            "false\tthe event is of cuda:0, the stream of cuda:1",
            "false\tdevice 'cuda:2': there is no such CUDA device (devices here: cpu, cuda:0, cuda:1)",
        }, "\n") .. "\n", (output:gsub("%(command line%):%d+: ", "")))
    end)

    it("copy between each other in order, and the host waits for none of them", function()
        local code = [[
            local a = pg.arange(1000, {dtype = pg.float32, device = "cuda:0"})
            local one = pg.zeros(1000, {device = "cuda:1"})
            pg.cuda.synchronize("cuda:0") pg.cuda.synchronize("cuda:1")
            local before = {pg.cuda.Event({device = 0}), pg.cuda.Event({device = 1})}
            local sums = {}
            for k = 1, 5 do
                a:add_(1)                             -- on its way while it is copied
                if k == 1 then before[1]:record() one:add_(1) before[2]:record(pg.cuda.current_stream("cuda:1")) end
                local there = a:to("cuda:1")
                a:add_(1)                             -- what was copied stays
                local half = there:to("cuda:0", pg.float64)
                there:mul_(0)
                one:copy_(a:view(10, 100):t():reshape(1000))
                sums[k] = half:sum() + one:to("cuda:0")[1]
                there, half = nil, nil                -- their memory is taken again
                collectgarbage()
            end
            print(before[1]:query(), before[2]:query())
            for k = 1, 5 do io.write(sums[k]:item(), " ") end
            local there                           -- its memory is taken again while its sum is still to be made
            for k = 6, 8 do
                there = (a + k):to("cuda:1")
                sums[k] = there:sum()
                there:free()
            end
            for k = 6, 8 do io.write((sums[k] - sums[6]):item(), " ") end
            print(pg.zeros(2, 0, {device = "cuda:0"}):to("cuda:1").shape)
            print(pcall(pg.cuda.graph(function(x) return x:to("cuda:1") end, {warmup = 0}), a))
        ]]
        -- the ramp's sum, and the second element of the transposed one, which was the hundredth
        local expected = {}
        for k = 1, 5 do expected[k] = ("%d"):format(499500 + 1000 * (2 * k - 1) + 100 + 2 * k) end
        for k = 0, 2 do expected[#expected + 1] = ("%d"):format(1000 * k) end
        for late = 1, 6 do
            local output = run("PERIGEE_CUDA=emulated PERIGEE_CUDA_DEVICES=2 PERIGEE_CUDA_LATE=" .. late, code)
            local reached, sums, rest = output:match("^(.-)\n(.- )(%S.*)$")
            assert.equal("false\tfalse", reached)
            assert.equal(table.concat(expected, " ") .. " ", output:match("\n([%d ]+)"), sums)
            assert.matches("%(2, 0%)\nfalse\t.*a copy from cuda:0 to cuda:1 cannot be captured in a graph", rest)
        end
    end)

    it("that refuse a launch or are lost give an error each time; the process goes on", function()
        local code = [[
            local x = pg.ones(3, {device = "cuda"})
            local function try(f) local ok, m = pcall(f) print(ok and "fine" or m:gsub("^.-: ", "", 1)) end
            for _ = 1, 3 do try(function() return (x + 1):sum():item() end) end
            try(function() return pg.ones(2, {device = "cuda"}):cpu() end)
            try(function() pg.cuda.synchronize() end)
            try(function() return pg.empty(2^24, {device = "cuda"}) end)
            print(pg.ones(3):sum():item())
        ]]
        local refused_once = run("PERIGEE_CUDA=emulated PERIGEE_CUDA_REFUSE=2", code)
        assert.equal('add: "pointwise" failed on cuda:0: too many resources requested for launch '
            .. "(cudaErrorLaunchOutOfResources)\nfine\nfine\nfine\nfine\nfine\n3\n", refused_once)
        local lost, n = run("PERIGEE_CUDA=emulated PERIGEE_CUDA_LOSE=2", code), 0
        for line in lost:gmatch("[^\n]+") do
            n = n + 1
            if n < 7 then
                assert.matches("cuda:0: .*an illegal memory access was encountered %(cudaErrorIllegalAddress%)", line)
            end
        end
        assert.equal(7, n, lost)
        assert.matches("\n3\n$", lost)
    end)

    it("that refuse a launch do not leave a gradient where a second run would read logits", function()
        local code = [[
            local F = pg.nn.functional
            local function grads(device, keep)
                local x = pg.tensor({{1, 2}, {3, 4}}, {device = device, requires_grad = true})
                local w = pg.tensor({{1, 0}, {0, 1}, {1, 1}}, {device = device, requires_grad = true})
                local b = pg.tensor({1, 2, 0}, {device = device, requires_grad = true})
                local loss = F.linear_cross_entropy(x, w, pg.int64({0, 2}, {device = device}), {linear_bias = b})
                local function run() return {pg.autograd.grad(loss, {x, w, b}, {retain_graph = keep})} end
                local ok, g = pcall(run)
                if ok then return "no failure", g end
                ok, g = pcall(run)
                if ok then return "went on", g end
                return g:match("a second time") or g
            end
            local _, wanted = grads("cpu")
            for _, keep in ipairs {false, true} do
                local done, how, got = pcall(grads, "cuda", keep)
                print(done and how or "no loss")
                for k, g in ipairs(got or {}) do assert((g:cpu() - wanted[k]):abs():max():item() < 1e-6, "wrong") end
            end
        ]]
        local seen = {}
        for launch = 1, 200 do
            local output = run("PERIGEE_CUDA=emulated PERIGEE_CUDA_REFUSE=" .. launch, code)
            local first, kept = output:match("^([^\n]*)\n([^\n]*)\n$")
            assert.is_truthy(first, output)
            seen[first], seen["kept: " .. kept] = true, true
            if first == "no failure" and kept == "no failure" then break end
        end
        assert.same({
            ["no loss"] = true, ["went on"] = true, ["a second time"] = true, ["no failure"] = true,
            ["kept: no loss"] = true, ["kept: went on"] = true, ["kept: no failure"] = true,
        }, seen)
    end)
end)

describe("without CUDA", function()

    it("everything else works, and the reason is told", function()
        local code = [[
            print(pg.cuda.is_available())
            print(pg.cuda.device_count())
            print(pg.ones(2):sum():item())
            print(pcall(pg.ones, 1, {device='cuda'}))
            print(pcall(pg.cuda.synchronize))
            print(pcall(pg.ones(1).pin_memory, pg.ones(1)))
            pg.cuda.empty_cache() pg.empty_cache() pg.manual_seed(1)
            print(pcall(pg.cuda.graph, print))
        ]]
        local output = run("PERIGEE_CUDA=off", code)
        assert.matches("^false\tPERIGEE_CUDA=off hides it\n0\n2\n", output)
        assert.matches("device 'cuda': PERIGEE_CUDA=off hides it %(devices here: cpu%)", output)
        assert.matches("pinned memory needs a CUDA device: PERIGEE_CUDA=off", output)
        assert.matches("a graph needs a CUDA device", output)
        assert.matches("PERIGEE_CUDA: expected off or emulated, got 'rocket'", run("PERIGEE_CUDA=rocket", code))
    end)
end)
