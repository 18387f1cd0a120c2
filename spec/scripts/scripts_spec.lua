-- The scripts, run as a user runs them.

local pg = require("perigee")
local system = require("perigee.system")

local PROGRAM = (os.getenv("PERIGEE_BUILD") or "build") .. "/perigee"

-- Runs a script; gives its status and what it wrote to stdout and stderr. An environment of its own ("NAME=value ...")
-- stands in front of the name: "PERIGEE_CUDA=emulated demo_mlp.lua".
local function script(name, ...)
    local environment, file = name:match("^(.-)(%S+)$")
    local words = { environment .. PROGRAM, "scripts/" .. file }
    for _, argument in ipairs { ... } do
        words[#words + 1] = system.shell_quote(argument)
    end
    local out, err = os.tmpname(), os.tmpname()
    local status = os.execute(table.concat(words, " ") .. " >" .. out .. " 2>" .. err .. " </dev/null")
    local stdout, stderr = system.read_file(out), system.read_file(err)
    os.remove(out)
    os.remove(err)
    return math.floor(status / 256), stdout, stderr
end

local function folder()
    local path = os.tmpname()
    os.remove(path)
    return path
end

local function losses(text)
    local list = {}
    for step, loss in text:gmatch("step=(%d%d%d) loss=([%d%.]+)\n") do
        list[#list + 1] = { tonumber(step), tonumber(loss) }
    end
    return list
end

local TINY = {
    "--data=LICENSE", "--n_layer=1", "--n_head=2", "--n_embd=16", "--block_size=16", "--batch_size=4", "--max_iters=20",
    "--eval_interval=10", "--eval_iters=2", "--log_interval=1", "--dropout=0.1", "--warmup_iters=3",
    "--lr_decay_iters=20", "--sample_tokens=30", "--gradient_accumulation_steps=2",
}

local function tiny(...)
    local arguments = {}
    for _, list in ipairs { TINY, { ... } } do
        for _, argument in ipairs(list) do
            arguments[#arguments + 1] = argument
        end
    end
    return unpack(arguments)
end

describe("scripts", function()
    it("demo_mlp learns XOR", function()
        local status, out, err = script("demo_mlp.lua")
        assert.equal("", err)
        assert.equal(0, status)
        local list = losses(out)
        assert.equal(0, list[1][1])
        assert.is_true(list[#list][2] < 0.01, out)
    end)

    it("demo_linear_regression finds the line", function()
        local status, out, err = script("demo_linear_regression.lua")
        assert.equal("", err)
        assert.equal(0, status)
        assert.is_true(losses(out)[1][2] > 1)
        local w, b = out:match("w=([%d%.]+) b=([%d%.]+)")
        assert.is_true(math.abs(tonumber(w) - 3) < 0.1 and math.abs(tonumber(b) - 0.5) < 0.1, out)
    end)

    it("train_gpt trains, plots, samples; an interrupted run ends as a whole one, bit for bit", function()
        local whole, parts = folder(), folder()
        local status, out, err = script("train_gpt.lua", tiny("--out_dir=" .. whole))
        assert.equal("", err)
        assert.equal(0, status)
        assert.matches("step 20: train loss %d+%.%d+, val loss %d+%.%d+", out)
        assert.matches("A sample after 20 steps", out)
        assert.equal("\137PNG", system.read_file(whole .. "/loss.png"):sub(1, 4))
        status = script("train_gpt.lua", tiny("--out_dir=" .. parts, "--max_iters=10"))
        assert.equal(0, status)
        status, out, err = script("train_gpt.lua", "--out_dir=" .. parts, "--init_from=resume", "--max_iters=20")
        assert.equal("", err)
        assert.equal(0, status)
        assert.matches("10 steps in", out)
        for _, name in ipairs { "last", "best" } do
            local a = pg.train.load_checkpoint(whole .. "/" .. name .. ".safetensors")
            local b = pg.train.load_checkpoint(parts .. "/" .. name .. ".safetensors")
            assert.equal(a.iter, b.iter)
            assert.equal(a.best, b.best)
            for key, t in a.model:iter() do
                assert.is_true(t:eq(b.model[key]):all():item(), key)
            end
            for number, state in pairs(a.optimizer.state) do
                assert.is_true(state.exp_avg_sq:eq(b.optimizer.state[number].exp_avg_sq):all():item())
            end
            assert.is_true(a.rng_state:eq(b.rng_state):all():item())
        end
        local one = pg.train.read_metrics(whole .. "/metrics.jsonl")
        local two = pg.train.read_metrics(parts .. "/metrics.jsonl")
        assert.equal(#one, #two)
        for i, row in ipairs(one) do
            row.time, two[i].time = nil, nil
            assert.same(row, two[i])
        end

        -- and the sampler
        local arguments = { "--out_dir=" .. whole, "--start=the", "--max_new_tokens=20", "--seed=5" }
        status, out, err = script("sample.lua", unpack(arguments))
        assert.equal("", err)
        assert.equal(0, status)
        assert.matches("^on cpu %(.-%), float32\nthe", out)
        assert.equal(out, (select(2, script("sample.lua", unpack(arguments)))))
        local _
        status, _, err = script("sample.lua", "--out_dir=" .. whole, "--start=\240\159\152\128")
        assert.equal(1, status)
        assert.matches("is not in the vocabulary", err)
        status, _, err = script("train_gpt.lua", "--out_dir=" .. whole, "--init_from=resume", "--data=README.md")
        assert.equal(1, status)
        assert.matches("the text differs from the one that the checkpoint was trained on", err)
        status, _, err = script("train_gpt.lua", "--out_dir=" .. whole, "--init_from=resume", "--n_layer=3")
        assert.equal(1, status)
        assert.matches("%-%-n_layer=3: the checkpoint's model has 1", err)
        os.execute("rm -r " .. whole .. " " .. parts)
    end)

    it("say what is wrong with their arguments", function()
        local status, _, err = script("train_gpt.lua", "--n_layers=3")
        assert.equal(2, status)
        assert.matches("unknown setting %-%-n_layers %(did you mean %-%-n_layer%?%)", err)
        assert.matches("%-%-learning_rate=0%.001", err)
        status, _, err = script("train_gpt.lua", "--max_iters=many")
        assert.equal(2, status)
        assert.matches("expected an integer, got \"many\"", err)
        status, _, err = script("train_gpt.lua", "--data=/no/such/file")
        assert.equal(1, status)
        assert.matches("/no/such/file", err)
        status, _, err = script("train_gpt.lua", "--init_from=resume", "--out_dir=/no/such")
        assert.equal(1, status)
        assert.matches("nothing to resume", err)
        status, _, err = script("sample.lua", "--out_dir=/no/such")
        assert.equal(1, status)
        assert.matches("there is no checkpoint", err)
        status, _, err = script("train_mnist.lua", "--data", "/no/such")
        assert.equal(1, status)
        assert.matches("there is no /no/such/train%-images%-idx3%-ubyte", err)
        local out
        status, out = script("train_gpt.lua", "--help")
        assert.equal(0, status)
        assert.matches("%-%-n_head=4", out)
    end)

    it("train_mnist reads idx files and trains", function()
        local path = folder()
        assert(system.mkdir(path))
        -- Images of two kinds: the label is whether the upper or the lower half is lit.
        for name, n in pairs { train = 400, t10k = 50 } do
            local images, labels = {}, {}
            for i = 1, n do
                local lower = (i * 7) % 2
                labels[i] = string.char(lower)
                local bright, dark = string.char(200 + i % 50):rep(392), string.char(i % 30):rep(392)
                images[i] = lower == 1 and dark .. bright or bright .. dark
            end
            local size = string.char(0, 0, math.floor(n / 256), n % 256)
            assert(system.write_file(path .. "/" .. name .. "-images-idx3-ubyte",
                "\0\0\8\3" .. size .. "\0\0\0\28\0\0\0\28" .. table.concat(images)))
            assert(system.write_file(path .. "/" .. name .. "-labels-idx1-ubyte",
                "\0\0\8\1" .. size .. table.concat(labels)))
        end
        local status, out, err = script("train_mnist.lua", "--data", path, "--batch_size=50")
        assert.equal("", err)
        assert.equal(0, status)
        assert.matches("Linear%(in_features=784, out_features=256, bias=True%)", out)
        local accuracy = out:match("epoch=3 loss=[%d%.]+ test_accuracy=([%d%.]+)%%")
        assert.equal(100, tonumber(accuracy))
        os.execute("rm -r " .. path)
    end)

    -- CUDA's code, emulated: what --device=cuda does where there is a GPU
    it("compute on cuda what they compute on the cpu, when asked and where there is one", function()
        local CUDA = "PERIGEE_CUDA=emulated "
        local status, there, err = script(CUDA .. "demo_mlp.lua")
        assert.equal("", err)
        assert.equal(0, status)
        assert.matches("^on cuda %(CUDA emulated on the CPU%), float32\n", there)
        local _, here = script(CUDA .. "demo_mlp.lua", "--device=cpu")
        assert.matches("^on cpu %(", here)
        local a, b = losses(there), losses(here)
        assert.equal(#b, #a)
        for k = 1, #a do
            assert.is_true(math.abs(a[k][2] - b[k][2]) < 1e-4, there .. here)
        end

        local out_dir = folder()
        for _, dtype in ipairs { "bfloat16", "float16", "float64" } do
            status, there, err = script(CUDA .. "train_gpt.lua", tiny("--out_dir=" .. out_dir, "--dtype=" .. dtype))
            assert.equal("", err)
            assert.equal(0, status)
            assert.matches("^on cuda %(.-%), " .. dtype .. "[^\n]*\n", there)
            local first, last = there:match("step 0: train loss ([%d%.]+).*step 20: train loss ([%d%.]+)")
            assert.is_true(tonumber(last) < tonumber(first), there)
        end
        status, there = script(CUDA .. "sample.lua", "--out_dir=" .. out_dir, "--start=the", "--max_new_tokens=5")
        assert.equal(0, status)
        assert.matches("^on cuda [^\n]*\nthe", there)
        os.execute("rm -r " .. out_dir)
    end)

    it("say where there is no such device, and end", function()
        for _, name in ipairs { "demo_mlp.lua", "demo_linear_regression.lua", "train_gpt.lua", "train_mnist.lua",
            "sample.lua" } do
            local status, _, err = script("PERIGEE_CUDA=emulated " .. name, "--device=cuda:7")
            assert.equal(2, status)
            assert.matches("%-%-device=cuda:7: device 'cuda:7': there is no such CUDA device", err)
            status, _, err = script("PERIGEE_CUDA=off " .. name, "--device=cuda")
            assert.equal(2, status)
            assert.matches("%-%-device=cuda: ", err)
        end
    end)
end)
