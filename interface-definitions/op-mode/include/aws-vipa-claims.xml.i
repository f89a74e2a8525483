<!-- include start from aws-vipa-claims.xml.i -->
<tagNode name="claim">
  <properties>
    <help>Claim what a group moves now, if this router is master</help>
    #include <include/aws-vipa-group.xml.i>
  </properties>
  <command>sudo /usr/bin/vyos-aws-vipa force claim -- "$4"</command>
</tagNode>
<tagNode name="pause">
  <properties>
    <help>Pause claiming for a group (default: 30 minutes)</help>
    #include <include/aws-vipa-group.xml.i>
  </properties>
  <command>sudo /usr/bin/vyos-aws-vipa force pause -- "$4"</command>
  <children>
    <tagNode name="minutes">
      <properties>
        <help>Duration of the pause in minutes</help>
        <completionHelp>
          <list>&lt;1-1440&gt;</list>
        </completionHelp>
        <constraint>
          <regex>(1440|14[0-3][0-9]|1[0-3][0-9]{2}|[1-9][0-9]{0,2})</regex>
        </constraint>
        <constraintErrorMessage>Must be 1 to 1440 minutes</constraintErrorMessage>
      </properties>
      <command>sudo /usr/bin/vyos-aws-vipa force pause --minutes="$6" -- "$4"</command>
    </tagNode>
  </children>
</tagNode>
<leafNode name="prove">
  <properties>
    <help>Prove the permission to claim, without moving anything</help>
  </properties>
  <command>sudo /usr/bin/vyos-aws-vipa force prove</command>
</leafNode>
<tagNode name="resume">
  <properties>
    <help>Resume claiming for a group</help>
    #include <include/aws-vipa-group.xml.i>
  </properties>
  <command>sudo /usr/bin/vyos-aws-vipa force resume -- "$4"</command>
</tagNode>
<!-- include end -->
