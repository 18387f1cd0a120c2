local json = require("perigee.json")
local pg = require("perigee")
local system = require("perigee.system")

local nn = pg.nn

local function names(iterator)
    local list = {}
    for name in iterator do
        list[#list + 1] = name
    end
    return list
end

local Block = nn.class("Block")
function Block:__init(width)
    self.width = width
    self.fc = nn.Linear(width, 2 * width)
    self.scale = nn.Parameter(pg.ones(width))
    self:register_buffer("mean", pg.zeros(width))
    self.proj = nn.Linear(2 * width, width, { bias = false })
end
function Block:forward(x)
    return self.proj(self.fc(x):relu()) * self.scale - self.mean
end

describe("nn.Module", function()
    it("registers what is assigned, in order", function()
        local block = Block(3)
        assert.same({ "scale", "fc.weight", "fc.bias", "proj.weight" }, names(block:named_parameters()))
        assert.same({ "scale", "mean", "fc.weight", "fc.bias", "proj.weight" }, block:state_dict():keys())
        assert.same({ "fc", "proj" }, names(block:named_children()))
        assert.same({ "", "fc", "proj" }, names(block:named_modules()))
        assert.same({ "p.scale" }, names(block:named_parameters("p", false)))
        assert.same({ "mean" }, names(block:named_buffers()))
        assert.equal(4, #block:parameters())
        assert.equal(3, block.width)
        assert.is_true(block:is_a(nn.Module))
        assert.is_true(block:is_a(Block))
        assert.is_false(block:is_a(nn.Linear))
    end)

    it("computes", function()
        local block = Block(3)
        assert.same({ 4, 3 }, { unpack(block(pg.ones(4, 3)).shape) })
    end)

    it("sees every kind of assignment", function()
        local m = nn.Module()
        m.weight = nn.Parameter(pg.ones(2))
        m.weight = nn.Parameter(pg.zeros(3))
        assert.equal(3, m.weight:numel())
        assert.equal(1, #m:parameters())
        assert.has_error(function() m.weight = pg.ones(2) end)
        assert.has_error(function() m.weight = 5 end)
        m.weight = nil
        assert.is_nil(m.weight)
        assert.equal(0, #m:parameters())
        m.weight = "a text"
        m.weight = nn.Parameter(pg.ones(1))       -- a field becomes a parameter
        assert.equal(1, #m:parameters())
        m.child = nn.ReLU()
        assert.has_error(function() m.child = 3 end)
        m.child = nn.Tanh()
        assert.equal("Tanh()", tostring(m.child))
        m.child = nil
        assert.same({}, m:children())
        m.plain = pg.ones(2)                      -- a tensor alone is a field
        assert.same({ "weight" }, m:state_dict():keys())
        m:register_buffer("table", pg.ones(2), false)
        assert.same({ "weight" }, m:state_dict():keys())
        assert.equal(1, #m:buffers())
        m.table = pg.zeros(4)
        assert.equal(4, m:buffers()[1]:numel())
        assert.has_error(function() m.table = 1 end)
    end)

    it("refuses bad names", function()
        local m = nn.Linear(1, 1)
        for _, bad in ipairs { "a.b", "" } do
            assert.has_error(function() m:register_parameter(bad, nn.Parameter(pg.ones(1))) end)
            assert.has_error(function() m:register_buffer(bad, pg.ones(1)) end)
            assert.has_error(function() m:register_module(bad, nn.ReLU()) end)
        end
        assert.has_error(function() m:register_buffer("weight", pg.ones(1)) end)
        assert.has_error(function() m:register_buffer("forward", pg.ones(1)) end)
        assert.has_error(function() m:register_buffer("b", 3) end)
        assert.has_error(function() m:register_module("b", 3) end)
        assert.has_error(function() m:register_parameter("p", pg.ones(1)) end)
    end)

    it("tells parameters from other tensors", function()
        local p = nn.Parameter(pg.ones(2))
        assert.is_true(nn.is_parameter(p))
        assert.is_true(p.requires_grad and p.is_leaf)
        assert.is_false(nn.is_parameter(p:detach()))
        assert.is_false(nn.is_parameter(pg.ones(2, { requires_grad = true })))
        assert.is_false(nn.Parameter(pg.ones(2), false).requires_grad)
        assert.has_error(function() nn.Parameter(3) end)
    end)

    it("shares memory with what a parameter is made of", function()
        local x = pg.zeros(2)
        local p = nn.Parameter(x)
        x:fill_(3)
        assert.same({ 3, 3 }, p:totable())
    end)

    it("counts a shared parameter once, and names it twice", function()
        local m = nn.Module()
        m.wte = nn.Embedding(5, 3)
        m.head = nn.Linear(3, 5, false)
        m.head.weight = m.wte.weight
        assert.equal(1, #m:parameters())
        assert.same({ "wte.weight" }, names(m:named_parameters()))
        assert.same({ "wte.weight", "head.weight" }, names(m:named_parameters("", true, false)))
        assert.same({ "wte.weight", "head.weight" }, m:state_dict():keys())
        m:double()
        assert.equal(m.wte.weight.id, m.head.weight.id)
        assert.equal(pg.float64, m.head.weight.dtype)
        -- A shared module likewise.
        local n = nn.Module()
        n.a = nn.Linear(2, 2)
        n.b = n.a
        assert.equal(2, #n:parameters())
        assert.equal(4, n:state_dict():len())
        assert.equal(2, #n:modules())
    end)

    it("inherits", function()
        local Wide = nn.class("Wide", Block)
        function Wide:__init(width)
            Block.__init(self, width)
            self.extra = nn.Identity()
        end
        local wide = Wide(2)
        assert.equal(4, #wide:parameters())
        assert.is_true(wide:is_a(Block))
        assert.same({ 1, 2 }, { unpack(wide(pg.ones(1, 2)).shape) })
        assert.matches("^Wide%(", tostring(wide))
        function Wide.forward() return "mine" end
        assert.equal("mine", wide(1))
        assert.has_error(function() nn.class("X", {}) end)
        assert.has_error(function() nn.class() end)
        assert.has_error(function() nn.class("Empty")()(1) end)
    end)

    it("switches modes, applies, freezes", function()
        local m = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        assert.is_true(m.training and m[1].training)
        assert.equal(m, m:eval())
        assert.is_false(m.training or m[1].training)
        m:train()
        assert.is_true(m[1].training)
        assert.has_error(function() m:train(1) end)
        local seen = {}
        m:apply(function(x) seen[#seen + 1] = x:_get_name() end)
        assert.same({ "Linear", "Dropout", "Sequential" }, seen)
        m:requires_grad_(false)
        assert.is_false(m[0].weight.requires_grad)
    end)

    it("drops gradients", function()
        local m = nn.Linear(2, 1)
        m(pg.ones(1, 2)):sum():backward()
        assert.is_not_nil(m.weight.grad)
        m:zero_grad(false)
        assert.same({ { 0, 0 } }, m.weight.grad:totable())
        m:zero_grad()
        assert.is_nil(m.weight.grad)
    end)

    it("runs hooks", function()
        local m, calls = nn.Identity(), {}
        local before = m:register_forward_pre_hook(function(module, inputs)
            assert.equal(m, module)
            calls[#calls + 1] = "before"
            return inputs[1] + 1
        end)
        local after = m:register_forward_hook(function(_, inputs, output)
            calls[#calls + 1] = "after"
            assert.same(inputs[1]:item(), output:item())
            return output * 10
        end)
        assert.equal(20, m(pg.tensor(1)):item())
        assert.same({ "before", "after" }, calls)
        before:remove()
        assert.equal(10, m(pg.tensor(1)):item())
        after:remove()
        assert.equal(1, m(pg.tensor(1)):item())
        after:remove()
        assert.has_error(function() m:register_forward_hook(3) end)
        -- nil arguments and several results pass through.
        local Pair = nn.class("Pair")
        function Pair.forward(_, a, b, c) return a, b, c end
        local pair = Pair()
        pair:register_forward_hook(function() end)
        local a, b, c = pair(1, nil, 3)
        assert.same({ 1, 3 }, { a, c })
        assert.is_nil(b)
    end)

    it("converts floating tensors only", function()
        local m = nn.Linear(2, 2)
        m:register_buffer("count", pg.tensor({ 1, 2 }, { dtype = pg.int64 }))
        m(pg.ones(1, 2)):sum():backward()
        assert.equal(m, m:to(pg.float64))
        assert.equal(pg.float64, m.weight.dtype)
        assert.equal(pg.float64, m.weight.grad.dtype)
        assert.equal(pg.int64, m.count.dtype)
        assert.is_true(nn.is_parameter(m.weight) and m.weight.requires_grad)
        local id = m.weight.id
        m:to { dtype = pg.float64, device = m.weight.device }
        assert.equal(id, m.weight.id)      -- nothing to convert: the same tensor
        m:float()
        assert.equal(pg.float32, m.weight.dtype)
        assert.has_error(function() m:to(pg.int64) end)
    end)

    it("finds by dotted names", function()
        local m = nn.Sequential(nn.Sequential(nn.Linear(2, 3)))
        assert.equal(m[0][0], m:get_submodule("0.0"))
        assert.equal(m[0][0].weight.id, m:get_parameter("0.0.weight").id)
        assert.has_error(function() m:get_submodule("0.1") end)
        assert.has_error(function() m:get_parameter("0.0.scale") end)
    end)

    describe("load_state_dict", function()
        it("copies", function()
            local a, b = Block(2), Block(2)
            local result = b:load_state_dict(a:state_dict())
            assert.same({ missing_keys = {}, unexpected_keys = {} }, result)
            for name, t in a:state_dict():iter() do
                assert.same(t:totable(), b:state_dict()[name]:totable())
            end
            assert.is_true(b.scale.requires_grad)
            -- copied, not shared; dtypes convert
            pg.no_grad(function() a.scale:fill_(7) end)
            assert.same({ 1, 1 }, b.scale:totable())
            b:load_state_dict(a:double():state_dict())
            assert.equal(pg.float32, b.scale.dtype)
            assert.same({ 7, 7 }, b.scale:totable())
        end)

        it("says what does not fit, as PyTorch says it", function()
            local m = nn.Linear(2, 3)
            local ok, why = pcall(m.load_state_dict, m, { weight = pg.ones(2, 2), x = pg.ones(1) })
            assert.is_false(ok)
            assert.equal("Error(s) in loading state_dict for Linear:\n\tMissing key(s) in state_dict: \"bias\". \n\t"
                .. "Unexpected key(s) in state_dict: \"x\". \n\tsize mismatch for weight: copying a param with shape "
                .. "[2, 2] from checkpoint, the shape in current model is [3, 2].", why:gsub("^%S+:%d+: ", "", 1))
            local result = m:load_state_dict({ weight = pg.zeros(3, 2), y = pg.ones(1) }, { strict = false })
            assert.same({ missing_keys = { "bias" }, unexpected_keys = { "y" } }, result)
            assert.same({ { 0, 0 }, { 0, 0 }, { 0, 0 } }, m.weight:totable())
            -- a size mismatch is an error however strict, and changes nothing
            assert.has_error(function() m:load_state_dict({ weight = pg.ones(1) }, { strict = false }) end)
            assert.same({ 0, 0 }, m.weight[0]:totable())
            assert.has_error(function() m:load_state_dict({ weight = 3, bias = pg.ones(3) }) end)
            assert.has_error(function() m:load_state_dict(nil) end)
            assert.has_error(function() m:load_state_dict({}, { strickt = true }) end)
        end)
    end)

    it("prints as PyTorch prints", function()
        local file = "fixtures/ops/data/modules.json"
        local text = assert(system.read_file(file), file .. " is missing; write it with fixtures/ops/generate_ops.py")
        local cases = json.decode(text).cases
        assert.is_true(#cases > 10)
        local build
        local function arguments(list)
            local out = {}
            for i, item in ipairs(list or {}) do
                if type(item) == "table" and (item.new or item.class) then
                    out[i] = build(item)
                elseif type(item) == "table" then
                    out[i] = arguments(item)
                else
                    out[i] = item
                end
            end
            return out
        end
        function build(spec)
            if spec.class then
                local m = nn.class(spec.class)()
                for _, child in ipairs(spec.children) do
                    m[child[1]] = build(child[2])
                end
                return m
            end
            local args = arguments(spec.args)
            local n = #args
            if spec.kwargs and next(spec.kwargs) then
                n = n + 1
                args[n] = spec.kwargs
            end
            return nn[spec.new](unpack(args, 1, n))
        end
        for _, case in ipairs(cases) do
            assert.equal(case.text, tostring(build(case.module)))
        end
    end)

    it("is named in errors at the user's line", function()
        local _, why = pcall(function() nn.Linear(2.5, 1) end)
        assert.matches("module_spec%.lua:%d+: Linear: in_features must be an integer, got number 2%.5", why)
        _, why = pcall(function() nn.Linear(2, 3, true, 4) end)
        assert.matches("takes at most 3 arguments", why)
        _, why = pcall(function() nn.Linear(2, 3, true, { bias = false }) end)
        assert.matches("bias is given twice", why)
        _, why = pcall(function() nn.Linear(2, 3, { biass = false }) end)
        assert.matches("unknown option biass %(did you mean bias%?%); known: bias, device, dtype, in_features", why)
    end)
end)

describe("containers", function()
    it("count from 0", function()
        local m = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        assert.same({ "0.weight", "0.bias", "2.weight", "2.bias" }, m:state_dict():keys())
        assert.equal(m[2], m[-1])
        assert.equal(3, m:len())
        assert.has_error(function() return m[3] end)
        assert.has_error(function() return m[-4] end)
        m[1] = nn.Tanh()
        assert.equal("Tanh()", tostring(m[1]))
        assert.has_error(function() m[1] = 5 end)
        local seen = {}
        for i, item in m:iter() do
            seen[i + 1] = item
        end
        assert.equal(m[0], seen[1])
        assert.equal(3, #seen)
    end)

    it("take names", function()
        local m = nn.Sequential { { "fc", nn.Linear(2, 3) }, { "act", nn.ReLU() } }
        assert.same({ "fc.weight", "fc.bias" }, m:state_dict():keys())
        assert.equal(m.fc, m[0])
        assert.has_error(function() nn.Sequential { { "fc" } } end)
        assert.has_error(function() nn.Sequential(nn.ReLU(), 3) end)
    end)

    it("grow", function()
        local list = nn.ModuleList { nn.ReLU() }
        list:append(nn.Tanh()):extend { nn.GELU() }
        list:insert(1, nn.Sigmoid())
        local texts = {}
        for i, item in list:iter() do
            texts[i + 1] = tostring(item)
        end
        assert.same({ "ReLU()", "Sigmoid()", "Tanh()", "GELU(approximate='none')" }, texts)
        assert.has_error(function() list:append(1) end)
        assert.has_error(function() list:insert(9, nn.ReLU()) end)
        assert.has_error(function() list(pg.ones(1)) end)
        local dict = nn.ModuleDict { b = nn.ReLU(), a = nn.Tanh() }
        assert.same({ "a", "b" }, names(dict:named_children()))
        assert.equal("Tanh()", tostring(dict.a))
    end)
end)

describe("state dicts", function()
    it("keep their order and are plain tables", function()
        local d = nn.OrderedDict { { "z", 1 }, { "a", 2 } }
        d.m = 3
        assert.same({ "z", "a", "m" }, d:keys())
        d.a = nil
        assert.same({ "z", "m" }, d:keys())
        d.a = 4
        assert.equal(3, d:len())
        local seen = {}
        for key, value in pairs(d) do
            seen[key] = value
        end
        assert.same({ z = 1, m = 3, a = 4 }, seen)
    end)
end)

describe("modules and scopes", function()
    it("keep what is stored in a module", function()
        local m = nn.Module()
        pg.scope(function()
            pg.scope(function()
                m.fc = nn.Linear(3, 2)
                m.p = nn.Parameter(pg.ones(2))
                m:register_buffer("b", pg.ones(2))
                m.cache = pg.ones(2) * 5
            end)
        end)
        assert.same({ 1, 1 }, m.p:totable())
        assert.same({ 1, 1 }, m.b:totable())
        assert.same({ 5, 5 }, m.cache:totable())
        assert.same({ 1, 2 }, { unpack(m.fc(pg.ones(1, 3)).shape) })
    end)
end)
