local pg = require("perigee")
local system = require("perigee.system")

local data = pg.data

local function fails(pattern, f, ...)
    local ok, why = pcall(f, ...)
    assert.is_false(ok, "no error")
    assert.matches(pattern, why)
end

local function numbers(loader)
    local list = {}
    for x in loader:iter() do
        for _, value in ipairs(x:totable()) do
            list[#list + 1] = value
        end
    end
    return list
end

describe("datasets", function()
    it("TensorDataset gives rows", function()
        local d = data.TensorDataset(pg.arange(6):view(3, 2), pg.int64 { 7, 8, 9 })
        assert.equal(3, d:len())
        local x, y = d:get(1)
        assert.same({ 2, 3 }, x:totable())
        assert.equal(8, y:item())
        assert.equal(9, select(2, d:get(-1)):item())
        fails("out of range", d.get, d, 3)
        fails("size mismatch", data.TensorDataset, pg.ones(3), pg.ones(4))
        fails("must be a tensor", data.TensorDataset, { 1 })
        fails("size mismatch", data.TensorDataset, pg.tensor(1))
        fails("at least one", data.TensorDataset)
    end)

    it("Subset and random_split do not overlap", function()
        local d = data.TensorDataset(pg.arange(10))
        local s = data.Subset(d, { 3, 1, 4 })
        assert.same({ 3, 1, 4 }, { s:get(0):item(), s:get(1):item(), s:get(2):item() })
        assert.same({ 4, 3 }, s:batch(pg.int64 { 2, 0 }):totable())
        fails("indices%[1%] must be in", data.Subset, d, { 10 })
        local parts = data.random_split(d, { 7, 3 }, { seed = 5 })
        local again = data.random_split(d, { 0.7, 0.3 }, { seed = 5 })
        local seen = {}
        for k, part in ipairs(parts) do
            assert.same(part.indices:totable(), again[k].indices:totable())
            for _, i in ipairs(part.indices:totable()) do
                assert.is_nil(seen[i])
                seen[i] = true
            end
        end
        assert.equal(7, parts[1]:len())
        assert.equal(10, #seen + (seen[0] and 1 or 0))
        local three = data.random_split(d, { 1 / 3, 1 / 3, 1 / 3 })
        assert.same({ 4, 3, 3 }, { three[1]:len(), three[2]:len(), three[3]:len() })
        fails("add up to 8, the dataset has 10", data.random_split, d, { 5, 3 })
    end)
end)

describe("DataLoader", function()
    it("goes in order, keeps or drops the last batch", function()
        local d = data.TensorDataset(pg.arange(10))
        local loader = data.DataLoader(d, 4)
        assert.equal(3, loader:len())
        assert.same({ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 }, numbers(loader))
        assert.same({ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 }, numbers(loader))
        local dropping = data.DataLoader(d, { batch_size = 4, drop_last = true })
        assert.equal(2, dropping:len())
        assert.equal(8, #numbers(dropping))
        local count = 0
        for _ in loader() do
            count = count + 1
        end
        assert.equal(3, count)
    end)

    it("shuffles by its seed, anew each epoch", function()
        local d = data.TensorDataset(pg.arange(50))
        local a = data.DataLoader(d, { batch_size = 7, shuffle = true, seed = 3 })
        local b = data.DataLoader(d, { batch_size = 9, shuffle = true, seed = 3 })
        local first, second = numbers(a), numbers(a)
        assert.same(first, numbers(b))
        assert.not_same(first, second)
        table.sort(first)
        table.sort(second)
        assert.same(first, second)
        assert.equal(0, first[1])
        assert.equal(49, first[50])
        pg.manual_seed(11)
        local c = numbers(data.DataLoader(d, { shuffle = true }))
        pg.manual_seed(11)
        assert.same(c, numbers(data.DataLoader(d, { shuffle = true })))
        assert.not_same(c, numbers(data.DataLoader(d, { shuffle = true })))
    end)

    it("spreads every element evenly", function()
        local shuffle = require("perigee.data.shuffle")
        local counts = {}
        for seed = 1, 3000 do
            local order = shuffle.permutation(6, shuffle.epoch_seed(9, seed))
            local first = tonumber(order[0])
            counts[first] = (counts[first] or 0) + 1
        end
        for i = 0, 5 do
            assert.is_true(counts[i] > 400 and counts[i] < 600, counts[i])
        end
    end)

    it("goes on from a state in the middle of an epoch", function()
        local d = data.TensorDataset(pg.arange(20))
        local function loader()
            return data.DataLoader(d, { batch_size = 3, shuffle = true, seed = 4 })
        end
        local whole = loader()
        local expected = {}
        for _ = 1, 3 do
            for x in whole:iter() do
                expected[#expected + 1] = x:totable()
            end
        end
        for stop = 1, 20 do
            local half, rest, seen, state = loader(), loader(), {}, nil
            while not state do
                for x in half:iter() do
                    seen[#seen + 1] = x:totable()
                    if #seen == stop then
                        state = half:state_dict()
                        break
                    end
                end
            end
            rest:load_state_dict(state)
            while #seen < #expected do
                for x in rest:iter() do
                    seen[#seen + 1] = x:totable()
                end
            end
            assert.same(expected, seen)
        end
        fails("expected what its state_dict gave", whole.load_state_dict, whole, {})
    end)

    it("collates samples", function()
        local d = {
            len = function() return 4 end,
            get = function(_, i)
                return pg.ones(2) * i, i, { name = "s" .. i, value = i + 0.5 }, i % 2 == 0
            end,
        }
        local x, label, record, even = data.DataLoader(d, 2):iter()()
        assert.same({ { 0, 0 }, { 1, 1 } }, x:totable())
        assert.equal(pg.int64, label.dtype)
        assert.same({ "s0", "s1" }, record.name)
        assert.same({ 0.5, 1.5 }, record.value:totable())
        assert.equal(pg.bool, even.dtype)
        local own = data.DataLoader(d, { batch_size = 3, collate_fn = function(samples) return #samples end })
        local sizes = {}
        for n in own:iter() do
            sizes[#sizes + 1] = n
        end
        assert.same({ 3, 1 }, sizes)
    end)

    it("works inside scopes", function()
        local loader = data.DataLoader(data.TensorDataset(pg.arange(9)), { batch_size = 3, shuffle = true, seed = 1 })
        local list = {}
        for _ = 1, 2 do
            local following = loader:iter()
            for _ = 1, 3 do
                pg.scope(function()
                    for _, value in ipairs(following():totable()) do
                        list[#list + 1] = value
                    end
                end)
            end
            assert.is_nil(following())
        end
        local made = pg.scope(function()
            return data.DataLoader(data.Subset(data.TensorDataset(pg.arange(4)), { 3, 1 }), 2)
        end)
        assert.same({ 3, 1 }, numbers(made))
        table.sort(list)
        assert.same({ 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8 }, list)
    end)

    it("refuses what makes no sense", function()
        local d = data.TensorDataset(pg.arange(3))
        fails("expected a dataset", data.DataLoader, { 1, 2 })
        fails("batch_size must be at least 1", data.DataLoader, d, 0)
        fails("did you mean shuffle", data.DataLoader, d, { shufle = true })
        fails("collate_fn must be a function", data.DataLoader, d, { collate_fn = 3 })
        local loader = data.DataLoader(d)
        local old = loader:iter()
        old()
        loader:iter()
        fails("abandoned", old)
    end)
end)

describe("read_idx", function()
    local function write(text, gzip)
        local path = os.tmpname()
        assert(system.write_file(path, text))
        if gzip then
            assert.equal(0, os.execute("gzip -f " .. path))
            path = path .. ".gz"
        end
        return path
    end
    local IMAGES = "\0\0\8\3\0\0\0\2\0\0\0\1\0\0\0\3\1\2\3\4\5\255"

    it("reads plain and gzipped files", function()
        for _, gzip in ipairs { false, true } do
            local path = write(IMAGES, gzip)
            local t = data.read_idx(path)
            assert.equal(pg.uint8, t.dtype)
            assert.same({ { { 1, 2, 3 } }, { { 4, 5, 255 } } }, t:totable())
            os.remove(path)
        end
    end)

    it("reads big-endian types", function()
        assert.same({ 1, -2 }, data.read_idx(write("\0\0\12\1\0\0\0\2\0\0\0\1\255\255\255\254")):totable())
        assert.same({ 1.5 }, data.read_idx(write("\0\0\13\1\0\0\0\1\63\192\0\0")):totable())
        assert.same({ 256 }, data.read_idx(write("\0\0\11\1\0\0\0\1\1\0")):totable())
        assert.same({}, data.read_idx(write("\0\0\8\1\0\0\0\0")):totable())
    end)

    it("checks every length, and names the file", function()
        for text, message in pairs {
            [""] = "ends too early: expected 4 bytes of the magic number, got 0",
            ["\0\0\8"] = "ends too early",
            ["PK\3\4xxxxxxxx"] = "is no idx file",
            ["\0\0\7\1\0\0\0\1\1"] = "is no idx file",
            ["\0\0\8\3\0\0\0\2\0\0"] = "expected 12 bytes of sizes, got 6",
            [IMAGES:sub(1, -2)] = "expected 6 bytes of elements of %[2, 1, 3%], got 5",
            [IMAGES .. "x"] = "goes on after its 6 elements of %[2, 1, 3%]",
            ["\0\0\14\2\255\255\255\255\255\255\255\255"] = "more than its 12 bytes can hold",
        } do
            local path = write(text)
            fails(message, data.read_idx, path)
            fails(path:gsub("%p", "%%%0"), data.read_idx, path)
            os.remove(path)
        end
        local path = write(IMAGES:rep(50) .. IMAGES, true)
        local bytes = system.read_file(path)
        fails("read_idx", data.read_idx, write(bytes:sub(1, -9)))
        local whole = write("\0\0\8\1\0\0\1\0" .. ("abcdefghij"):rep(26):sub(1, 256), true)
        local packed = system.read_file(whole)
        assert.equal(256, data.read_idx(whole):numel())
        fails("read_idx", data.read_idx, write(packed:sub(1, -12)))
        fails("read_idx", data.read_idx, write(packed:sub(1, 20) .. "\255\254" .. packed:sub(23)))
        fails("cannot read /no/such", data.read_idx, "/no/such")
        fails("is a folder", data.read_idx, "/tmp")
        fails("expected a path", data.read_idx, 3)
    end)
end)

describe("Characters", function()
    it("encodes and decodes any text", function()
        local text = "h\195\169llo\n\255\128w"
        local v = data.Characters(text)
        local ids = v:encode(text)
        assert.equal(pg.int64, ids.dtype)
        assert.equal(text, v:decode(ids))
        assert.equal(v.characters[1], v:decode(0))
        assert.equal(text, data.Characters(v.characters):decode(ids))
        fails("\"z\" is not in the vocabulary", v.encode, v, "hz")
        fails("no character 99", v.decode, v, { 99 })
        fails("not empty", data.Characters, "")
    end)
end)
