-- The program with the engine: tensors at the prompt, Ctrl-C inside ops and training loops.

local program = require "spec.host.program"

local perigee = program.quote(program.path)

local TRAINING = [[
local pg = require "perigee"
local inputs = {}
for i = 1, 32 do inputs[i] = {math.sin(i), math.cos(2 * i), math.sin(3 * i + 1)} end
local x = pg.tensor(inputs)
local target = x:matmul(pg.tensor {{1.5}, {-2}, {0.5}})
local w = pg.tensor({{0}, {0}, {0}}):requires_grad_()
local rate = 1e-4
print "training"
for step = 1, STEPS do
    local difference = x:matmul(w) + target * -1
    local loss = (difference * difference):sum() * (1 / 32)
    loss:backward()
    w = (w:detach() + w.grad * -rate):requires_grad_()
    if rate == 0 then print("rate", rate, "step", step > 1) break end
end
local result = w:totable()
if press_every then press_every(0) end
print(("result %.17g %.17g %.17g"):format(result[1][1], result[2][1], result[3][1]))
]]

describe("the program with tensors", function()
    local folder, terminal

    before_each(function()
        folder = program.temporary_folder()
    end)

    after_each(function()
        if terminal then
            terminal:close()
            terminal = nil
        end
        program.remove_folder(folder)
    end)

    local function open(arguments)
        terminal = program.terminal(perigee .. " " .. (arguments or ""))
        return terminal
    end

    it("prints tensors, alone and in tables, and lists them", function()
        local t = open()
        t:wait_for("pg, nn and F are loaded.*\n>\n$")
        t:line("x = pg.tensor {{1, 2}, {3, 4.5}}")
        t:line("x + x")
        t:wait_for("\ntensor%(%[%[2%., 4%.%],\n +%[6%., 9%.%]%]%)\n>\n$")
        t:line("x;")
        t:line("_:sum()")
        t:wait_for("\ntensor%(10%.5000%)\n>\n$")
        t:line("{x, size = x.shape}")
        t:wait_for("\n{tensor %(2, 2%) float32, size = %(2, 2%)}\n>\n$")
        t:line("ids = pg.int64 {1, 2, 3}")
        t:line("who")
        t:wait_for("\nids +tensor +%(3%) int64 +24 B\nx +tensor +%(2, 2%) float32 +16 B\n2 names, 40 B\n>\n$")
    end)

    it("shows an op's error at the user's line, without Perigee's own frames", function()
        local t = open()
        t:wait_for("loaded.*\n>\n$")
        t:line("function twice(x) return (x:matmul(x)) end")
        t:line("twice(pg.tensor {{1, 2, 3}})")
        t:wait_for("\nstdin:1: matmul: [^\n]+%[1, 3%][^\n]+\n  stdin:1: in function 'twice'\n>\n$")
    end)

    it("completes ops, methods, and names in help", function()
        local t = open()
        t:wait_for("loaded.*\n>\n$")
        t:line("x = pg.tensor {1, 2}")
        t:type("x:requires_g")
        t:press("Tab")
        t:wait_for("> x:requires_grad_\n$")
        t:line("():numel() + 40")
        t:wait_for("\n42\n")
        t:type("pg.manual_s")
        t:press("Tab")
        t:wait_for("> pg%.manual_seed\n$")
        t:press("C-c")
        t:type("help 'matmu")
        t:press("Tab", "Enter")
        t:wait_for("> help 'matmul'\nmatmul%(input: Tensor, other: Tensor%)")
    end)

    it("shows, lists and completes modules", function()
        local t = open()
        t:wait_for("loaded.*\n>\n$")
        t:line("model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))")
        t:line("model")
        t:wait_for("\nSequential%(\n  %(0%): Linear%(in_features=4, out_features=2, bias=True%)\n")
        t:line("who()")
        t:wait_for("\nmodel +module +13 parameters +52 B\n")
        t:type("model:state_d")
        t:press("Tab")
        t:wait_for("> model:state_dict\n$")
        t:line("()")
        t:wait_for('\n +%["0.bias"%] = tensor')
        t:type("model[1].wei")
        t:press("Tab")
        t:wait_for("> model%[1%]%.weight\n$")
        t:line(":numel() + 40")
        t:wait_for("\n42\n>\n$")
    end)

    it("stops a loop of ops, and a long op, at Ctrl-C", function()
        local t = open()
        t:wait_for("loaded.*\n>\n$")
        t:line("x = pg.tensor({{0.001}}):expand(300, 300):contiguous()")
        t:line("print('lo' .. 'op') while true do y = x:matmul(x) end")
        t:wait_for("\nloop\n")
        t:press("C-c")
        t:wait_for("\nloop\n[^\n]*interrupted\n>\n$")
        t:line("x = pg.tensor({{0.001}}):expand(6000, 6000):contiguous()")
        t:line("print('pro' .. 'duct') y = x:matmul(x:t())")
        t:wait_for("\nproduct\n")
        t:press("C-c")
        t:wait_for("\nproduct\n.*interrupted\n>\n$")
        t:line("pg.tensor({1, 2}) * 21")
        t:wait_for("\ntensor%(%[21%., 42%.%]%)\n>\n$")
    end)

    it("pauses a training script, looks, changes a local, and goes on", function()
        local script = folder .. "/train.lua"
        program.write_file(script, (TRAINING:gsub("STEPS", "1e12")))
        local t = open("-i " .. script)
        t:wait_for("\ntraining\n")
        t:press("C-c")
        t:wait_for("pause>\n$")
        t:line("('%d %s'):format(w:numel(), tostring(w.requires_grad)), step >= 1")
        t:wait_for("\n3 true%s+true\npause>\n$")
        t:line("x:matmul(w):size()")
        t:wait_for("\n%(32, 1%)\npause>\n$")
        t:line("inputs = nil")
        t:line("rate = 0")
        t:line("cont")
        t:wait_for("\nrate%s+0%s+step%s+true\nresult [^\n]+\n.*\n>\n$")
        t:line("pg.tensor({1, 2}) * 21")
        t:wait_for("\ntensor%(%[21%., 42%.%]%)\n>\n$")
    end)

    it("computes the same to the bit through many pauses that run ops themselves", function()
        local script = folder .. "/train.lua"
        program.write_file(script, (TRAINING:gsub("STEPS", "40000")))
        local expected = program.run({script}):match("result %-?%d[^\n]+")
        assert.truthy(expected)
        -- The hook may hit between any two instructions, those of an op's wrapper too.
        -- Behind the last line the input ends, and a pause goes on at once.
        local lines = "('answer %d'):format((pg.tensor({1, 2}):sum() * 7):item() + 21)\ncont\n"
        local press = program.press_often
        local out = program.run({"-i", "-e", "require 'perigee'", "-e", press, script}, lines:rep(60))
        assert.are.equal(expected, out:match("result %-?%d[^\n]+"))
        local _, pauses = out:gsub("paused;", "")
        local _, answers = out:gsub("answer 42", "")
        assert.truthy(pauses >= 5, out)
        assert.truthy(answers >= 5, out)
    end)
end)
