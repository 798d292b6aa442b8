-- What the requests of one conversation have in common: HAProxy hashes it to choose their replica, so that its
-- prefix cache holds what was said before. Clients need not do anything; those that know better say so with the
-- header `x-wattgate-session` or with OpenAI's `prompt_cache_key`. Without any of it: nil, and the replicas take turns.

local MOST = 120 * 1024  -- bytes of the first messages that are looked at; HAProxy keeps 128 KiB of a request

-- Position behind the string whose opening quote is at `at`; nil where it does not end here.
local function after_string(text, at)
  local from = at + 1
  while true do
    local found = text:find('["\\]', from)
    if not found then return nil end
    if text:byte(found) == 34 then return found + 1 end
    from = found + 2
  end
end

-- The messages up to the first of the user, as they were sent: later turns only add to them.
local function opening(body)
  local _, start = body:find('"messages"%s*:%s*%[')
  if not start then return nil end
  local text = body:sub(start + 1, start + MOST)
  local at, depth, began = 1, 0, 1
  while true do
    local found, _, mark = text:find('(["{}%[%]])', at)
    if not found then return text end
    at = found + 1
    if mark == '"' then
      at = after_string(text, found)
      if not at then return text end
    elseif mark == "{" or mark == "[" then
      if depth == 0 then began = found end
      depth = depth + 1
    else
      if depth == 0 then return text:sub(1, found - 1) end
      depth = depth - 1
      if depth == 0 and text:sub(began, found):find('"role"%s*:%s*"user"') then return text:sub(1, found) end
    end
  end
end

function conversation(header, body)
  if header and header ~= "" then return header end
  if not body then return nil end
  return body:match('"prompt_cache_key"%s*:%s*"([^"\\]+)"') or opening(body)
end

if core then
  core.register_fetches("conversation", function(txn)
    return conversation(txn.f:req_hdr("x-wattgate-session"), txn.f:req_body())
  end)
end
