-- Views: what they share, what may be written through them, what they refuse. Values and gradients against PyTorch are
-- in spec/fixtures.

local pg = require "perigee"

local function refused(pattern, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok, "was not refused: " .. pattern)
    assert.is_truthy(message:find(pattern, 1, true), message)
end

local function matrix() return pg.arange(12):to(pg.float32):view(3, 4) end

describe("views", function()
    it("share memory and version with their input", function()
        local x = matrix()
        local views = {
            view = x:view(4, 3), reshape = x:reshape(2, 6), transpose = x:transpose(0, 1), t = x:t(),
            permute = x:permute(1, 0), expand = x:expand(2, 3, 4), broadcast_to = x:broadcast_to({ 2, 3, 4 }),
            squeeze = x:squeeze(),
            unsqueeze = x:unsqueeze(1), flatten = x:flatten(), unflatten = x:unflatten(1, { 2, 2 }),
            narrow = x:narrow(0, 0, 2),
            select = x:select(0, 0), split = x:split(2)[1], chunk = x:chunk(2)[1], unbind = x:unbind()[1],
            diagonal = x:diagonal(), as_strided = x:as_strided({ 2, 2 }, { 1, 1 }), slice = x[{ { 0, 2 } }],
            all = x[{}],
            movedim = x:movedim(0, 1), swapaxes = x:swapaxes(0, 1), bits = x:view(pg.int32),
        }
        for name, v in pairs(views) do
            assert.is_true(v:same_storage(x), name)
            if name ~= "bits" then
                assert.is_true(v.is_view, name)
                assert.equal(0, v:flatten()[0]:item(), name)
            end
        end
        local version = x._version
        views.t[{ 0, 0 }] = 7
        assert.is_true(x._version > version)
        for name, v in pairs(views) do
            assert.equal(x._version, v._version, name)
            if name ~= "bits" then assert.equal(7, v:flatten()[0]:item(), name) end
        end
    end)

    it("have PyTorch's strides", function()
        local x = pg.zeros(2, 3, 4)
        assert.same({ 1, 4, 12 }, x:permute(2, 1, 0):stride())
        assert.same({ 12, 4, 4, 1 }, x:unsqueeze(2):stride())
        assert.same({ 12, 4, 1, 1 }, x:unsqueeze(-1):stride())
        assert.same({ 24, 12, 4, 1 }, x:unsqueeze(0):stride())
        assert.same({ 0, 12, 4, 1 }, x:expand(5, 2, 3, 4):stride())
        assert.same({ 24, 4, 1 }, x[{ { nil, nil, 2 } }]:stride())
        assert.equal(5, x[{ 0, 1, 1 }]:storage_offset())
        assert.same({ 13 }, pg.zeros(3, 12):diagonal():stride())
    end)

    it("of copies do not share", function()
        local x = matrix()
        assert.is_false(x:t():reshape(12):same_storage(x))
        assert.is_false(x:clone():same_storage(x))
        assert.is_false(x:t():contiguous():same_storage(x))
        assert.is_true(x:contiguous():same_storage(x))
        assert.is_true(x:to(pg.float32):same_storage(x))
        assert.is_false(x:to(pg.float32, { copy = true }):same_storage(x))
    end)

    it("take any strides apart where that needs no copy", function()
        local x = pg.zeros(4, 6)[{ {}, { 0, 4 } }]     -- strides 6, 1
        assert.same({ 6, 2, 1 }, x:view(4, 2, 2):stride())
        assert.same({ 12, 6, 1 }, x:view(2, 2, 4):stride())
        refused("strides do not allow the view", x.view, x, 16)
        assert.same({ 0 }, { x:view(4, 4, 1):numel() - 16 })
        local e = pg.zeros(1, 3):expand(4, 3)
        assert.same({ 0, 0, 1 }, e:view(2, 2, 3):stride())
    end)

    it("of nothing are fine", function()
        local x = pg.zeros(0, 3)
        assert.same({ 3, 0 }, { unpack(x:t().shape) })
        assert.same({ 0, 5, 2 }, { unpack(x:view(0, 5, 2).shape) })
        assert.equal(0, #x:unbind())
        assert.equal(1, #x:split(2))
        assert.equal(0, x:narrow(0, 0, 0):numel())
        assert.equal(0, x[{ { 2, 9 } }]:numel())
        refused("ambiguous", x.view, x, -1, 0)
    end)

    it("refuse what does not fit, and say what they got", function()
        local x = matrix()
        refused("shape [5, 5] is invalid for input of shape [3, 4] (12 elements)", x.view, x, 5, 5)
        refused("only one dimension can be inferred", x.view, x, -1, -1)
        refused("invalid size -2", x.reshape, x, -2, 6)
        refused("range of [-2, 1], but got 2", x.transpose, x, 0, 2)
        refused("dim 0 appears more than once", x.permute, x, 0, 0)
        refused("number of dims (1)", x.permute, x, 0)
        refused("expanded size (2) must match the existing size (3)", x.expand, x, 2, 4)
        refused("-1 is not allowed in a leading", x.expand, x, -1, 3, 4)
        refused("more elements than can be counted", x.expand, x, 2 ^ 40, 2 ^ 40, 3, 4)
        refused("index 3 is out of bounds for dimension 0 with size 3", x.select, x, 0, 3)
        refused("index -4 is out of bounds", x.select, x, 0, -4)
        refused("start (2) + length (2) exceeds the size (3)", x.narrow, x, 0, 2, 2)
        refused("length must not be negative", x.narrow, x, 0, 0, -1)
        refused("step of a slice must be positive", function() return x[{ { nil, nil, -1 } }] end)
        refused("must sum to the size 3", x.split, x, { 1, 1 })
        refused("split_size must be", x.split, x, 0)
        refused("chunks must be positive", x.chunk, x, 0)
        refused("at most 2 dimensions", pg.zeros(1, 1, 1).t, pg.zeros(1, 1, 1))
        refused("two dimensions", x.diagonal, x, 0, 1, 1)
        refused("start_dim 1 comes after end_dim 0", x.flatten, x, 1, 0)
        refused("don't multiply up", x.unflatten, x, 0, { 2, 2 })
        refused("at most 16 dimensions", x.view, x, { 12, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 })
    end)

    it("never reach outside their storage", function()
        local x = matrix()
        refused("reaches past the end of the storage of 12 elements", x.as_strided, x, { 3, 5 }, { 4, 1 })
        refused("reaches past the end", x.as_strided, x, { 2 }, { 2 ^ 62 })
        refused("reaches past the end", x.as_strided, x, { 1 }, { 1 }, 12)
        refused("negative strides", x.as_strided, x, { 2 }, { -1 })
        refused("must not be negative", x.as_strided, x, { 2 }, { 1 }, -1)
        refused("one length", x.as_strided, x, { 2, 2 }, { 1 })
        assert.equal(11, x[0]:as_strided({ 1 }, { 1 }, 11):item())
        assert.equal(0, x:as_strided({ 0 }, { 1 }, 12):numel())
    end)

    it("read the same bits as another dtype", function()
        local x = pg.tensor { 1, -2 }
        assert.same({ 0x3f800000, -1073741824 }, x:view(pg.int32):totable())
        assert.same({ 0, 0, 128, 63 }, x:view(pg.uint8)[{ { 0, 4 } }]:totable())
        assert.same({ 1, -2 }, x:view(pg.uint8):view(pg.float32):totable())
        refused("must be dense", function() return matrix():t():view(pg.int16) end)
        refused("everything a multiple of 8 bytes", function() return pg.zeros(3):view(pg.float64) end)
        refused("detach it first", function() return pg.ones(2, { requires_grad = true }):view(pg.int32) end)
    end)
end)

describe("writing", function()
    it("into a view changes the base and its gradient", function()
        local w = pg.ones(3, { requires_grad = true })
        local x = pg.ones(2, 3) * w
        x[0]:mul_(5)
        x:t()[1]:fill_(9)
        x:sum():backward()
        assert.same({ 6, 0, 6 }, w.grad:totable())
        assert.same({ { 5, 9, 5 }, { 1, 9, 1 } }, x:detach():totable())
    end)

    it("takes a source of any dtype and a shape that broadcasts, with its gradient", function()
        local x = pg.zeros(2, 3, { dtype = pg.float64 })
        local src = pg.tensor({ 1, 2, 3 }, { requires_grad = true })
        x:copy_(src)
        assert.same({ { 1, 2, 3 }, { 1, 2, 3 } }, x:detach():totable())
        assert.equal("CopyBackward", x.grad_fn and tostring(x.grad_fn):match("%a+"))
        x:sum():backward()
        assert.same({ 2, 2, 2 }, src.grad:totable())
        assert.equal(pg.float32, src.grad.dtype)
        local i = pg.int64 { 1, 2 }
        i:copy_(pg.tensor { 1.9, -1.9 })
        assert.same({ 1, -1 }, i:totable())
        refused("does not broadcast", x.copy_, x, pg.zeros(2))
    end)

    it("within one storage is done as if from a copy", function()
        local x = pg.arange(5)
        x[{ { 1, 5 } }]:copy_(x[{ { 0, 4 } }])
        assert.same({ 0, 0, 1, 2, 3 }, x:totable())
    end)

    it("is refused where PyTorch refuses", function()
        local leaf = pg.ones(4, { requires_grad = true })
        refused("a leaf tensor that requires grad", leaf.zero_, leaf)
        refused("a view of a leaf", function() leaf:view(2, 2):fill_(0) end)
        pg.no_grad(function() leaf:fill_(2) end)
        assert.same({ 2, 2, 2, 2 }, leaf:detach():totable())
        local y = leaf * 1
        for _, views in ipairs { y:split(2), y:chunk(2), y:unbind() } do
            refused("one of several views", function() views[1]:zero_() end)
        end
        local made_without = pg.no_grad(function() return y:view(4) end)
        refused("made under no_grad", function() made_without:zero_() end)
        refused("refers to a single memory location", function() pg.ones(1):expand(3):zero_() end)
    end)

    it("spoils what a gradient needs, and backward says so", function()
        local w = pg.ones(2, { requires_grad = true })
        local x = w * 2
        local y = x * x
        x[0]:zero_()
        refused("modified by an in-place operation", function() y:sum():backward() end)
    end)

    it("fills with what the dtype holds", function()
        assert.same({ 1, 1 }, pg.zeros(2, { dtype = pg.int8 }):fill_(1.7):totable())
        refused("cannot be held by int8", function() pg.zeros(1, { dtype = pg.int8 }):fill_(128) end)
        refused("cannot be held by uint8", function() pg.zeros(1, { dtype = pg.uint8 }):fill_(-1) end)
        refused("cannot be held by int64", function() pg.zeros(1, { dtype = pg.int64 }):fill_(2 ^ 63) end)
        refused("cannot be held by int32", function() pg.zeros(1, { dtype = pg.int32 }):fill_(0 / 0) end)
        assert.same({ true }, pg.zeros(1, { dtype = pg.bool }):fill_(3):totable())
        refused("a tensor of no dimensions", function() pg.zeros(2):fill_(pg.ones(1)) end)
    end)

    it("keeps the tensor's gradient at zero where nothing of it is left", function()
        local w = pg.ones(3, { requires_grad = true })
        local x = w * 2
        x:zero_()
        assert.is_true(x.requires_grad)
        x:sum():backward()
        assert.same({ 0, 0, 0 }, w.grad:totable())
    end)
end)
